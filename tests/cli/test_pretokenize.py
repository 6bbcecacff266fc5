"""``semhitok pretokenize`` from its options to what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyarrow")


def test_a_folder_becomes_token_files_once(run, checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch):
    arguments = ("pretokenize", pictures, "--model", checkpoint, "--out", tmp_path / "ids", "--images-per-shard", 4)
    outcome = run(*arguments, "--worker", 1, "--of", 2)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"{tmp_path / 'ids'}: 4 images in 1 token files\n"
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "5 images in 2 token files" in run(*arguments).out
    monkeypatch.undo()
    assert "9 images in 3 token files, 3 of them written before" in run(*arguments).out


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("--worker", 1), 2, "--worker and --of belong together"),
        (("--worker", 2, "--of", 2), 2, "worker 2 of 2 does not exist"),
        (("--ray", 0), 2, "--ray needs at least 1 actor"),
        (("--ray", 2, "--worker", 0, "--of", 1), 2, "leave out --worker and --of"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(run, pictures: Path, tmp_path: Path, options, code, sentence):
    outcome = run("pretokenize", pictures, "--out", tmp_path, *options)
    assert outcome.code == code
    assert sentence in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_data_that_cannot_be_read_are_told_in_a_sentence(run, checkpoint: Path, tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b compressed")
    (tmp_path / "text.txt").write_text("x")
    for data, sentence in (
        ("none", "no such file or folder"),
        (tmp_path / "none.tar", "there are no tar files"),
        (tmp_path / "text.txt", "is neither a folder nor a .tar or .parquet file"),
        (tmp_path / "a.tar", "1 of 1 shards could not be read"),
    ):
        outcome = run("pretokenize", data, "--model", checkpoint, "--out", tmp_path / "ids")
        assert outcome.code == 1
        assert sentence in outcome.err
        assert len(outcome.err.splitlines()) == 1
