"""``semhitok train``: a tiny recipe through the command line, overrides, resume, errors."""

from __future__ import annotations

import json

import pytest
import torch
from tests.tiny import save_images, save_teacher, tiny_recipe
from tests.tiny_unitok_training import save_captioned, tiny_unitok_recipe

from semhitok.cli import train


@pytest.fixture
def recipe(monkeypatch, tmp_path):
    """``semhitok train tiny``."""
    teacher = save_teacher(tmp_path / "teacher")

    def tiny():
        """Tests only."""
        return tiny_recipe(teacher)

    def tiny_unitok():
        """Tests only, with captions."""
        return tiny_unitok_recipe()

    monkeypatch.setattr(train, "RECIPES", {"tiny": tiny})
    monkeypatch.setattr(train, "UNITOK_RECIPES", {"tiny_unitok": tiny_unitok})
    return tmp_path


@pytest.fixture
def images(tmp_path):
    return save_images(tmp_path / "images", count=16)


def test_a_stage_with_overrides_and_again(run, recipe, images):
    arguments = ["train", "tiny", "--data", images, "--out", recipe / "run", "--stage", "semantic", "--device", "cpu"]
    overrides = ["--semantic.loop.steps", "2", "--model.semantic-dim", "5", "--semantic.loop.batch-size", "4"]
    outcome = run(*arguments, *overrides)
    assert outcome.code == 0
    written = json.loads((recipe / "run" / "semantic" / "recipe.json").read_text())
    assert written["semantic"]["loop"]["steps"] == 2
    assert written["semantic"]["loop"]["batch_size"] == 4
    assert written["model"]["semantic_dim"] == 5
    assert written["pixel"]["loop"]["steps"] == 12
    facts = json.loads(run("inspect", recipe / "run", "--json").out)
    assert facts["stages"] == ["semantic"]
    assert facts["provenance"]["semantic"]["steps"] == 2
    assert facts["provenance"]["semantic"]["data"] == "images"
    outcome = run(*arguments, *overrides)
    assert outcome.code == 0
    assert "stage semantic is done" in outcome.out


def test_an_interrupted_run_has_an_exit_code_of_its_own(run, recipe, images, monkeypatch):
    class State:
        interrupted = True

    given = {}

    def run_semhitok(recipe, source, options, **others):
        given.update(others, **vars(options))
        return State()

    monkeypatch.setattr("semhitok.runs.semhitok.run_semhitok", run_semhitok)
    outcome = run("train", "tiny", "--data", images, "--max-seconds", "100", "--device", "cpu")
    assert outcome.code == 143
    assert given["directory"].parts == ("runs", "tiny")
    assert given["stages"] == train.STAGES
    assert given["device"] == torch.device("cpu")
    assert given["max_seconds"] == 100
    run("train", "tiny", "--data", images, "--max-seconds", "90", "--stage", "pixel", "--device", "cpu")
    assert (given["stages"], given["max_seconds"]) == (("pixel",), 90)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["tiny"], 2, "--data"),
        (["nosuch", "--data", "."], 2, "nosuch"),
        (["tiny", "--data", "{tmp}", "--stage", "third"], 2, "third"),
        (["tiny", "--data", "{tmp}/nosuch"], 1, "no such file or folder"),
        (["tiny", "--data", "{tmp}/images", "--out", "{tmp}/run", "--stage", "pixel"], 1, "starts from a finished"),
        (["tiny", "--data", "{tmp}/images", "--out", "{tmp}/run", "--model.encoder-heads", "3"], 1, "encoder_heads 3"),
    ],
)
def test_errors(run, recipe, images, arguments, code, said):
    outcome = run("train", *(argument.format(tmp=recipe) for argument in arguments))
    assert outcome.code == code
    assert said in outcome.err


def test_out_of_memory_in_the_loop_says_what_to_lower(run, recipe, images, monkeypatch):
    from semhitok.training.tasks.semantic import SemanticTask

    def step(self, microbatches, state):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SemanticTask, "step", step)
    outcome = run("train", "tiny", "--data", images, "--out", recipe / "run", "--stage", "semantic", "--device", "cpu")
    assert outcome.code == 1
    assert "raise accumulation (now 2) or lower batch_size (now 8)" in outcome.err


def test_a_recipe_for_unitok_with_overrides_and_again(run, recipe, tmp_path):
    images, out = save_captioned(tmp_path / "captioned"), tmp_path / "run"
    arguments = ["train", "tiny_unitok", "--data", images, "--out", out, "--validation", images, "--device", "cpu"]
    overrides = ["--loop.steps", "3", "--model.codebook-size", "4", "--task.l1-weight", "0.5", "--text.width", "8"]
    outcome = run(*arguments, *overrides, "--discriminator.channels", "16")
    assert outcome.code == 0, outcome.err
    written = json.loads((out / "recipe.json").read_text())
    assert (written["loop"]["steps"], written["task"]["l1_weight"]) == (3, 0.5)
    assert (written["text"]["width"], written["discriminator"]["channels"]) == (8, 16)
    config = json.loads((out / "model" / "config.json").read_text())
    assert (config["codebook_size"], config["stages"]) == (4, ["unitok"])
    assert "evaluation/psnr" in (out / "metrics.jsonl").read_text()
    again = run(*arguments, *overrides)
    assert again.code == 0
    assert "is done" in again.out


def test_unitok_is_not_offered_what_does_not_apply(run, recipe):
    text = run("train", "tiny_unitok", "--help-all").out
    assert not any(option in text for option in ("--stage", "--teacher", "--cache-limit", "--joint"))
    assert all(option in text for option in ("--clip-weights", "--task.contrastive-weight", "--max-seconds"))
    assert "--loop.steps" in run("train", "tiny_unitok", "--help").out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--stage", "pixel"], 2, "--stage"),
        (["--model.heads", "3"], 1, "16 channels do not split into 3 heads"),
        (["--start-from", "{tmp}/nosuch"], 1, "nosuch"),
        (["--task.adversarial-start", "1", "--task.no-diffaug"], 1, "no augmentation to compare"),
        ([], 1, "images have no caption"),
    ],
)
def test_errors_of_unitok(run, recipe, tmp_path, arguments, code, said):
    images = save_captioned(tmp_path / "captioned", count=16, without=2)
    fixed = ["train", "tiny_unitok", "--data", images, "--out", tmp_path / "run", "--device", "cpu"]
    outcome = run(*fixed, *(argument.format(tmp=tmp_path) for argument in arguments))
    assert outcome.code == code
    assert said in outcome.err
    assert code == 2 or outcome.err.count("\n") == 1


def test_a_time_limit_reaches_the_loop_of_unitok(run, recipe, monkeypatch, tmp_path):
    given, images = {}, save_captioned(tmp_path / "captioned")

    def loop(task, feed, config, directory, **options):
        given.update(config=config, directory=directory)
        return type("State", (), {"interrupted": True, "finished": False})

    monkeypatch.setattr("semhitok.runs.stage_runner.train", loop)
    monkeypatch.chdir(tmp_path)
    assert run("train", "tiny_unitok", "--data", images, "--max-seconds", "100", "--device", "cpu").code == 143
    assert given["config"].max_seconds == 100
    assert given["directory"].parts == ("runs", "tiny_unitok")


def test_training_starts_from_a_bundled_checkpoint_by_its_name(run, recipe, images, monkeypatch, tmp_path):
    given = {}

    def stages(chosen, source, options, **others):
        given["start_from"] = options.start_from
        return type("State", (), {"interrupted": False, "finished": True})

    monkeypatch.setattr("semhitok.runs.semhitok.run_semhitok", stages)
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "tiny", "--data", images, "--stage", "pixel-finetune", "--device", "cpu", "--start-from"]
    assert run(*arguments, "nano").code == 0
    assert (given["start_from"] / "model.safetensors").is_file()
    assert run(*arguments, "runs/mine").code == 0
    assert given["start_from"].parts == ("runs", "mine")
