"""``semhitok train``: a tiny recipe through the command line, overrides, resume, errors."""

from __future__ import annotations

import json

import pytest
import torch
from tests.tiny import save_images, save_teacher, tiny_recipe

from semhitok.cli import train


@pytest.fixture
def recipe(monkeypatch, tmp_path):
    """``semhitok train tiny``."""
    teacher = save_teacher(tmp_path / "teacher")

    def tiny():
        """Tests only."""
        return tiny_recipe(teacher)

    monkeypatch.setattr(train, "RECIPES", {"tiny": tiny})
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

    def run_stages(recipe, source, directory, **options):
        given.update(options, recipe=recipe, directory=directory, source=source)
        return State()

    monkeypatch.setattr(train, "run_stages", run_stages)
    outcome = run("train", "tiny", "--data", images, "--max-seconds", "100", "--device", "cpu")
    assert outcome.code == 143
    assert given["directory"].parts == ("runs", "tiny")
    assert given["stages"] == train.STAGES
    assert given["device"] == torch.device("cpu")
    parts = [given["recipe"].semantic, *(given["recipe"].pixel_stage(stage) for stage in train.STAGES[1:])]
    assert [part.loop.max_seconds for part in parts] == pytest.approx([10, 45, 25, 20])
    run("train", "tiny", "--data", images, "--max-seconds", "90", "--stage", "pixel", "--device", "cpu")
    assert given["recipe"].pixel.loop.max_seconds == pytest.approx(90)
    assert given["recipe"].decoder.loop.max_seconds is None


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
    from semhitok.training.tasks import SemanticTask

    def step(self, microbatches, state):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SemanticTask, "step", step)
    outcome = run("train", "tiny", "--data", images, "--out", recipe / "run", "--stage", "semantic", "--device", "cpu")
    assert outcome.code == 1
    assert "raise accumulation (now 2) or lower batch_size (now 8)" in outcome.err
