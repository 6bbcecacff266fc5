"""Files of ids that cannot be decoded: one sentence that names the file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (np.full((2, 4, 4), 64), "ids must lie in [0, 64), got 64"),
        (np.full((2, 4, 4), -1), "ids must lie in [0, 64), got -1"),
        (np.zeros((2, 15), dtype=np.int64), "15 tokens"),
        (np.zeros((1, 4, 4, 2), dtype=np.int64), "holds 2 codes per token, the model"),
        (np.zeros((1, 1, 4, 4, 2), dtype=np.int64), "whole numbers of shape"),
        (np.zeros((2, 4, 4)), "whole numbers of shape"),
        (np.zeros((0, 4, 4), dtype=np.int64), "whole numbers of shape"),
        (np.array("text"), "holds no token ids"),
    ],
)
def test_wrong_ids(run, checkpoint, tmp_path, ids, said):
    np.save(tmp_path / "ids.npy", ids)
    _check(run("decode", tmp_path / "ids.npy", "--model", checkpoint, "--out", tmp_path / "out"), tmp_path, said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "holds no token ids"),
        ('{"grid": [4, 4]}', "holds no token ids"),
        ('{"ids": [["a"]]}', "holds no token ids"),
        ('{"ids": [[1, 2], [3]]}', "holds no token ids"),
        (json.dumps({"ids": [[0] * 16], "grid": [4, 5]}), "16 tokens per image and a grid of 4x5"),
        (json.dumps({"ids": [[0] * 16], "grid": 4}), "holds no token ids"),
        ("7", "whole numbers of shape"),
    ],
)
def test_wrong_json(run, checkpoint, tmp_path, content, said):
    (tmp_path / "ids.json").write_text(content)
    _check(run("decode", tmp_path / "ids.json", "--model", checkpoint, "--out", tmp_path / "out"), tmp_path, said)


def test_wrong_safetensors(run, checkpoint, tmp_path):
    file = tmp_path / "ids.safetensors"
    save_file({"tokens": torch.zeros(1, 16)}, file)
    _check(run("decode", file, "--model", checkpoint, "--out", tmp_path / "out"), tmp_path, "holds no token ids")
    file.write_bytes(file.read_bytes()[:10])
    _check(run("decode", file, "--model", checkpoint, "--out", tmp_path / "out"), tmp_path, "holds no token ids")


def test_truncated_and_foreign_files(run, checkpoint, tmp_path):
    np.save(tmp_path / "ids.npy", np.zeros((2, 4, 4), dtype=np.int64))
    whole = (tmp_path / "ids.npy").read_bytes()
    for content in (whole[:-9], whole[:20], b"", b"PK\x03\x04"):
        (tmp_path / "ids.npy").write_bytes(content)
        outcome = run("decode", tmp_path / "ids.npy", "--model", checkpoint, "--out", tmp_path / "out")
        _check(outcome, tmp_path, "holds no token ids")


def test_no_file_and_another_ending(run, checkpoint, tmp_path):
    outcome = run("decode", tmp_path / "ids.npy", "--model", checkpoint)
    assert (outcome.code, outcome.err) == (1, f"semhitok decode: no such file: {tmp_path / 'ids.npy'}\n")
    outcome = run("decode", tmp_path / "ids.pt", "--model", checkpoint)
    assert outcome.code == 1
    assert ".npy, .json, .safetensors" in outcome.err
    # Found out before the images are encoded.
    outcome = run("encode", tmp_path, "--out", tmp_path / "ids.pt")
    assert outcome.code == 1
    assert ".npy, .json, .safetensors" in outcome.err


def _check(outcome, folder, said) -> None:
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert str(folder) in outcome.err
    assert said in outcome.err
    assert not (folder / "out").exists()
