"""Pictures that cannot be used: the error names the file; where many are read they are counted."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image


def _bomb() -> bytes:
    """A PNG whose header promises 30,000 x 30,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\x00\x00\x00\x00IEND\xaeB`\x82"


def _bad_pictures(good: bytes) -> dict[str, bytes]:
    corrupt = bytearray(good)
    corrupt[len(good) // 2 : len(good) // 2 + 40] = b"\x00" * 40
    return {
        "truncated.png": good[: len(good) // 2],
        "corrupt.png": bytes(corrupt),
        "empty.png": b"",
        "bomb.png": _bomb(),
        "text.png": b"this is no picture",
    }


@pytest.fixture
def bad(tmp_path, pictures):
    folder = tmp_path / "bad"
    folder.mkdir()
    for name, content in _bad_pictures((pictures / "000.png").read_bytes()).items():
        (folder / name).write_bytes(content)
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    return folder


NAMES = ["truncated.png", "corrupt.png", "empty.png", "bomb.png", "text.png", "dot.png"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["reconstruct", "encode"])
def test_an_only_bad_picture_is_an_error_that_names_it(run, checkpoint, bad, tmp_path, command, name):
    out = tmp_path / ("out" if command == "reconstruct" else "ids.npy")
    outcome = run(command, bad / name, "--model", checkpoint, "--out", out)
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert str(bad / name) in outcome.err
    assert not out.exists()


@pytest.mark.parametrize("command", ["reconstruct", "encode"])
def test_bad_pictures_are_skipped_counted_and_absent_from_the_names(run, checkpoint, pictures, bad, tmp_path, command):
    files = [bad / NAMES[0], pictures / "001.png", *(bad / name for name in NAMES[1:4]), pictures / "000.png"]
    files += [bad / name for name in NAMES[4:]]
    folder = tmp_path / "out"
    out, ids = (folder, folder / "ids.npy") if command == "reconstruct" else (folder / "ids.npy",) * 2
    folder.mkdir()
    outcome = run(command, *files, "--model", checkpoint, "--out", out, "--batch-size", 2)
    assert outcome.code == 0
    assert "6 bad images of 8 skipped in all" in outcome.out
    assert all(f"skipped {bad / name}: " in outcome.out for name in NAMES)
    assert json.loads((folder / "ids.names.json").read_text()) == ["001.png", "000.png"]
    assert (
        run(
            "encode", pictures / "001.png", pictures / "000.png", "--model", checkpoint, "--out", tmp_path / "w.npy"
        ).code
        == 0
    )
    assert np.array_equal(np.load(ids), np.load(tmp_path / "w.npy"))


@pytest.mark.parametrize("command", ["reconstruct", "encode"])
def test_none_but_bad_pictures(run, checkpoint, bad, tmp_path, command):
    outcome = run(command, bad, "--model", checkpoint, "--out", tmp_path / "ids.npy")
    assert outcome.code == 1
    assert "none of the 6 images can be read" in outcome.err
    assert not (tmp_path / "ids.npy").exists()


def test_the_right_picture_under_a_wrong_name_is_fine(run, checkpoint, pictures, tmp_path):
    (tmp_path / "picture.jpg").write_bytes((pictures / "000.png").read_bytes())
    assert run("encode", tmp_path / "picture.jpg", "--model", checkpoint, "--out", tmp_path / "i.npy").code == 0


def test_missing_files_and_folders_without_pictures(run, checkpoint, tmp_path):
    outcome = run("encode", tmp_path / "nosuch.png", "--model", checkpoint)
    assert outcome.code == 1
    assert f"no such file or folder: {tmp_path / 'nosuch.png'}" in outcome.err
    (tmp_path / "none").mkdir()
    outcome = run("reconstruct", tmp_path / "none", "--model", checkpoint)
    assert outcome.code == 1
    assert "no pictures in" in outcome.err


def test_many_bad_pictures_stop_an_evaluation(run, checkpoint, bad, tmp_path):
    outcome = run("evaluate", checkpoint, bad, "--no-perceptual", "--no-frechet", "--out", tmp_path / "e")
    assert outcome.code == 1
    assert "6 of 6 images are bad" in outcome.err


def test_many_bad_pictures_stop_the_search_for_codes(run, checkpoint, bad, tmp_path):
    outcome = run("codes", *(bad / name for name in NAMES[:2]), "--model", checkpoint, "--out", tmp_path / "c")
    assert outcome.code == 1
    assert "truncated.png" in outcome.err
