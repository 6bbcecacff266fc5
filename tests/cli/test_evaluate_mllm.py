"""``semhitok evaluate-mllm``: answers and drawings measured and written, with a tiny model and a judge of mean colours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.conftest import Run
from tests.evaluation.scene_tars import mean_colours
from tests.evaluation.scenes_on_disk import made_up_scenes, write_asked_scenes
from tests.mllm.tiny_mllm import mllm, processor
from tests.tiny import tiny_model

from semhitok.evaluation.text_to_image import judge as judge_module
from semhitok.evaluation.text_to_image import judge_training
from semhitok.scenes.questions import questions

LINES = ("existence", "guidance 1", "guidance 2", "reconstructed", "shuffled")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, scenes to learn from and to be asked about; features that need no weights."""
    model = mllm(tokenizer=tiny_model())
    model.save_pretrained(tmp_path / "model")
    processor(model).save_pretrained(tmp_path / "model")
    write_asked_scenes(tmp_path / "train", made_up_scenes(30))
    write_asked_scenes(tmp_path / "test", made_up_scenes(12, seed=1))
    for module in (judge_module, judge_training):
        monkeypatch.setattr(module, "default_features", mean_colours)
    return tmp_path


def test_everything_is_measured_and_written(run: Run, place: Path):
    options = ["--train", place / "train", "--model", place / "model", "--prompts", 4, "--guidance", 1, 2]
    out = place / "out"
    outcome = run("evaluate-mllm", place / "test", *options, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    assert all(line in outcome.out for line in LINES)
    report = json.loads((out / "report.json").read_text())
    assert report["understanding"]["test"]["prior"]["accuracy"]["existence"]["share"] == 0.5
    assert report["drawing"]["rows"]["guidance 2"]["images"] == 4
    assert (out / "report.md").read_text() in outcome.out + "\n"
    assert Image.open(out / "guidance.png").width > 300
    # The judge that was fitted is used again.
    (place / "train").rename(place / "elsewhere")
    again = run(
        "evaluate-mllm",
        place / "test",
        *["--train", place / "elsewhere", "--model", place / "model", "--prompts", 4, "--guidance", 1, 2],
        *["--out", place / "again", "--judge", out / "judge.safetensors"],
    )
    assert again.code == 0
    assert json.loads((place / "again" / "report.json").read_text())["drawing"] == report["drawing"]


def test_answers_alone(run: Run, place: Path):
    options = ["--train", place / "train", "--model", place / "model", "--no-draw", "--limit", 5]
    outcome = run("evaluate-mllm", place / "test", *options, "--out", place / "out")
    assert outcome.code == 0
    assert json.loads((place / "out" / "report.json").read_text())["drawing"] is None
    assert not (place / "out" / "judge.safetensors").exists()


def test_words_alone(run: Run, place: Path):
    """The images are not shown, so they may be unlike what the captions say; no training scenes are needed."""
    shutil.rmtree(place / "train")
    options = ["--model", place / "model", "--no-images", "--limit", 5, "--out", place / "out"]
    outcome = run("evaluate-mllm", place / "test", *options)
    assert (outcome.code, outcome.err) == (0, "")
    assert "told in words" in outcome.out
    report = json.loads((place / "out" / "report.json").read_text())
    assert report["drawing"] is None
    asked = sum(len(each) for each in questions(made_up_scenes(12, seed=1), 0)[:5])
    kinds = ("existence", "count", "position", "category")
    assert sum(report["understanding"]["test"]["accuracy"].get(kind, {"total": 0})["total"] for kind in kinds) == asked


def test_what_cannot_be_measured_is_said(run: Run, place: Path, checkpoint: Path):
    train, test = place / "train", place / "test"
    outcome = run("evaluate-mllm", test, "--model", place / "model")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "--train is missing" in outcome.err
    cases = [
        ([test, test], "sets of scenes must have different names, got test, test", 2),
        ([test, "--model", checkpoint], "holds only an image tokenizer", 1),
        ([test, "--guidance", 0], "guidance must be above 0", 1),
        ([test, "--judge", place / "none"], "does not hold a readable judge", 1),
    ]
    for arguments, message, code in cases:
        model = [] if "--model" in arguments else ["--model", place / "model"]
        outcome = run("evaluate-mllm", *arguments, *model, "--train", train, "--out", place / "bad")
        assert outcome.code == code, arguments
        assert message in outcome.err
        assert outcome.err.count("\n") == 1
