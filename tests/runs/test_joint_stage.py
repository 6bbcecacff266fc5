"""Stage ``joint`` of a recipe: in place of stages 1 and 2, and what may follow it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny import STEPS, pixels, run_tiny

from semhitok.recipes import Recipe
from semhitok.tokenizers import SemHiTokModel
from semhitok.types import STAGES


def test_joint_training_stands_for_the_first_two_stages(recipe: Recipe, inputs: Path, tmp_path: Path):
    state = run_tiny(recipe, inputs / "images", tmp_path, ("joint",))
    assert (state.finished, state.step) == (True, STEPS)
    model = SemHiTokModel.from_pretrained(tmp_path / "joint" / "model")
    assert model.config.stages == ["joint"]
    assert model.config.provenance["joint"]["steps"] == STEPS
    images = pixels(64, seed=8)
    ids = model.encode(images).ids
    assert len(ids.unique()) > 8
    # The enhanced decoder follows without being told from where, and changes no id.
    run_tiny(recipe, inputs / "images", tmp_path, ("decoder",))
    enhanced = SemHiTokModel.from_pretrained(tmp_path / "decoder" / "model")
    assert enhanced.config.stages == ["joint", "decoder"]
    assert torch.equal(enhanced.encode(images).ids, ids)
    # A second call trains nothing.
    assert run_tiny(recipe, inputs / "images", tmp_path, ("joint",)).step == 0


def test_the_recipe_says_whether_pixels_pull_at_the_semantic_branch(recipe: Recipe, inputs: Path, tmp_path: Path):
    weights = []
    for pull in (True, False):
        folder = tmp_path / str(pull)
        run_tiny(replace(recipe, joint_gradient=pull), inputs / "images", folder, ("joint",))
        weights.append(SemHiTokModel.from_pretrained(folder / "joint" / "model").semantic.state_dict())
    assert not torch.equal(weights[0]["projection.out.weight"], weights[1]["projection.out.weight"])


def test_joint_training_is_none_of_the_papers_stages_and_starts_from_the_teacher(
    recipe: Recipe, inputs: Path, tmp_path: Path
):
    assert STAGES == ("semantic", "pixel", "pixel-finetune", "decoder")
    with pytest.raises(ValueError, match="stage joint starts from the teacher, not from a checkpoint"):
        run_tiny(recipe, inputs / "images", tmp_path, ("joint",), start_from=tmp_path)
