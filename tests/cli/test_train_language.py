"""``semhitok train`` of a language recipe: its stages through the command line, overrides, help, errors."""

from __future__ import annotations

import json

import pytest
from tests.data.records_on_disk import write_scenes
from tests.runs.test_language import shrunk
from tests.tiny import tiny_model

from semhitok.cli import train
from semhitok.recipes.language import mllm_nano


@pytest.fixture
def place(monkeypatch, tmp_path):
    """``semhitok train tiny_mllm``."""
    tiny_model().save_pretrained(tmp_path / "tokenizer")
    write_scenes(tmp_path / "scenes", 12)

    def tiny_mllm():
        """Tests only, a language model."""
        return shrunk(mllm_nano(), tmp_path)

    monkeypatch.setattr(train, "LANGUAGE_RECIPES", {"tiny_mllm": tiny_mllm})
    return tmp_path


def test_the_stages_with_overrides_and_again(run, place):
    arguments = ["train", "tiny_mllm", "--data", place / "scenes", "--out", place / "run", "--device", "cpu"]
    overrides = ["--pretrain.loop.steps", "2", "--adapter", "single", "--sft.mix.caption", "0"]
    outcome = run(*arguments, *overrides)
    assert outcome.code == 0, outcome.err
    written = json.loads((place / "run" / "sft" / "recipe.json").read_text())
    assert (written["pretrain"]["loop"]["steps"], written["sft"]["mix"]["caption"]) == (2, 0)
    config = json.loads((place / "run" / "sft" / "model" / "config.json").read_text())
    assert (config["adapter"], config["stages"]) == ("single", ["align", "pretrain", "sft"])
    assert config["provenance"]["pretrain"]["steps"] == 2
    outcome = run(*arguments, *overrides)
    assert all(f"stage {stage} is done" in outcome.out for stage in ("align", "pretrain", "sft"))


def test_help_shows_the_recipe(run, place):
    outcome = run("train", "tiny_mllm", "--help")
    assert outcome.code == 0
    assert "Tests only, a language model." in outcome.out
    assert "3 steps of 4 rows of 96 tokens" in outcome.out
    assert "--validation" not in outcome.out


def test_a_stage_with_nothing_to_start_from_is_one_sentence(run, place):
    outcome = run("train", "tiny_mllm", "--data", place / "scenes", "--out", place / "none", "--stage", "sft")
    assert outcome.code == 1
    assert "stage sft starts from a finished stage pretrain" in outcome.err


def test_time_is_shared_among_the_unfinished_stages(run, place, monkeypatch):
    seen = {}

    class State:
        interrupted, finished = False, True

    def stub(self, stage, start_from):
        seen[stage] = self.system.recipe.stage(stage).loop.max_seconds
        return State()

    monkeypatch.setattr("semhitok.runs.stage_runner.StageRunner._train", stub)
    monkeypatch.setattr("semhitok.runs.stage_runner.StageRunner._model_before", lambda self, stage: None)
    where = ("--data", place / "scenes", "--out", place / "run", "--device", "cpu")
    arguments = ("train", "tiny_mllm", *where, "--max-seconds", "408", "--sft.loop.batch-size", "16")
    assert run(*arguments).code == 0
    assert [seen[stage] for stage in ("align", "pretrain", "sft")] == pytest.approx([8 * 0.8, 80.32, 321.28], rel=0.01)
    seen.clear()
    assert run(*arguments, "--stage", "sft").code == 0
    assert seen == {"sft": pytest.approx(408)}


def test_a_dry_run_takes_one_step_and_writes_no_checkpoint(run, place):
    arguments = [
        "train",
        "tiny_mllm",
        "--data",
        place / "scenes",
        "--out",
        place / "dry",
        "--device",
        "cpu",
        "--dry-run",
    ]
    outcome = run(*arguments)
    assert outcome.code == 0, outcome.err
    assert "stage align can run: words (all)" in outcome.out
    assert "the first step of 4 rows of 96 tokens took" in outcome.out
    assert not list((place / "dry").rglob("step_*"))
    assert not list((place / "dry").rglob("model"))
    outcome = run(*arguments, "--stage", "sft")
    assert outcome.code == 1
    assert "stage sft starts from a finished stage pretrain" in outcome.err
