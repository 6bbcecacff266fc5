"""Names and texts that are not UTF-8, as file systems and terminals of other times have them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

ODD = os.fsdecode(b"caf\xe9")


@pytest.fixture
def odd(pictures: Path, tmp_path: Path) -> Path:
    folder = tmp_path / ODD
    folder.mkdir()
    for number, picture in enumerate(sorted(pictures.iterdir())[:3]):
        shutil.copy(picture, folder / f"{ODD}{number}.png")
    return folder


def test_reports_name_them(run, checkpoint, odd, tmp_path):
    outcome = run("evaluate", checkpoint, odd, "--out", tmp_path / "report")
    assert outcome.code == 0, outcome.err
    outcome.out.encode()
    assert ODD in json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))["groups"]
    assert "caf\\udce9" in (tmp_path / "report" / "report.md").read_text("utf-8")


@pytest.mark.parametrize("file", ["ids.json", "ids.npy", "ids.safetensors"])
def test_images_are_encoded(run, checkpoint, odd, tmp_path, file):
    assert run("encode", odd, "--model", checkpoint, "--out", tmp_path / ODD / file).code == 0
    if file == "ids.json":
        assert json.loads((tmp_path / ODD / file).read_text())["names"][0] == f"{ODD}0.png"


def test_images_are_reconstructed(run, checkpoint, odd, tmp_path):
    outcome = run("reconstruct", odd, "--model", checkpoint, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["images"][0]["name"] == f"{ODD}0.png"


def test_texts_are_refused_in_one_sentence(run, odd, tmp_path):
    for arguments in (["generate", ODD, "--out", tmp_path / "out"], ["chat", odd / f"{ODD}0.png", ODD]):
        outcome = run(*arguments)
        assert outcome.code == 1
        assert "is not UTF-8" in outcome.err
        assert outcome.err.count("\n") == 1
