"""Experiments with SemHiTok: stages that are shared, what a row changes, what is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny import save_images, save_teacher, tiny_recipe

from semhitok.data.sources import ImageFolder
from semhitok.experiments import ExperimentContext
from semhitok.experiments.semhitok import SemHiTokExperiment
from semhitok.recipes.recipe import Recipe
from semhitok.tokenizers import SemHiTokModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ablation")


@pytest.fixture(scope="module")
def place(folder: Path) -> ExperimentContext:
    source = ImageFolder(save_images(folder / "images"))
    return ExperimentContext(
        source, source, folder, folder, "images", folder / "out", torch.device("cpu"), 12, lambda line: None, None, ()
    )


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Recipe:
    return tiny_recipe(save_teacher(folder / "teacher"))


def with_model(recipe: Recipe, **fields: object) -> Recipe:
    return replace(recipe, model=recipe.model | fields)


def folders(place: ExperimentContext, stage: str) -> set[str]:
    return {path.name for path in (place.runs).glob(f"{stage}-*")}


def test_rows_share_the_stages_that_are_equal_and_differ_in_the_rest(place: ExperimentContext, recipe: Recipe):
    base = SemHiTokExperiment("base", recipe)
    found = base.run(place, 0)
    assert found["vocabulary"] == 64
    assert found["images"] == 12
    assert -1 < found["semantic_cosine"] < 1
    assert (len(folders(place, "semantic")), len(folders(place, "pixel"))) == (1, 1)

    smaller = SemHiTokExperiment("smaller", with_model(recipe, subcodebook_size=2))
    assert smaller.run(place, 0)["vocabulary"] == 32
    assert (len(folders(place, "semantic")), len(folders(place, "pixel"))) == (1, 2), "stage 1 was trained again"

    assert SemHiTokExperiment("again", recipe).run(place, 0) == found, "equal settings, equal figures"
    assert len(folders(place, "pixel")) == 2

    models = [
        SemHiTokModel.from_pretrained(path / stage / "model").state_dict()
        for stage in ("semantic", "pixel")
        for path in (place.runs).glob(f"{stage}-*")
    ]
    for name in models[0]:
        if name.startswith(("teacher.", "semantic.")):
            assert all(torch.equal(models[0][name], model[name]) for model in models[1:]), name


def test_seeds_differ_and_another_codebook_has_a_stage_1_of_its_own(place: ExperimentContext, recipe: Recipe):
    base = SemHiTokExperiment("base", recipe).run(place, 0)
    assert SemHiTokExperiment("base", recipe).run(place, 1)["psnr"] != base["psnr"]
    before = len(folders(place, "semantic"))
    experiment = SemHiTokExperiment("more codes", with_model(recipe, semantic_codebook_size=20))
    assert experiment.run(place, 0)["vocabulary"] == 80
    assert len(folders(place, "semantic")) == before + 1


def test_stage_1_alone_is_measured_by_its_codes_only(place: ExperimentContext, recipe: Recipe):
    found = SemHiTokExperiment("stage 1", recipe, stages=("semantic",)).run(place, 0)
    assert {"semantic_usage", "semantic_perplexity", "semantic_cosine"} == set(found)


def test_the_enhanced_decoder_starts_from_the_same_pixel_stage(place: ExperimentContext, recipe: Recipe):
    stages = ("semantic", "pixel", "decoder")
    SemHiTokExperiment("enhanced", recipe, stages=stages).run(place, 0)
    (enhanced,) = folders(place, "decoder")
    config = json.loads((place.runs / enhanced / "decoder" / "model" / "config.json").read_text())
    assert config["stages"] == list(stages)
    assert config["decoder_layers"] == 3
    assert len(folders(place, "pixel")) == len(set(folders(place, "pixel")))


def test_rows_of_fine_tuning_start_from_one_pixel_stage_and_differ_in_their_losses(
    place: ExperimentContext, recipe: Recipe
):
    def trained(stage: str) -> set[Path]:
        return set((place.runs).glob(f"*/{stage}"))

    stages = ("semantic", "pixel", "pixel-finetune")
    SemHiTokExperiment("base", recipe).run(place, 0)
    pixel, finetuned = trained("pixel"), trained("pixel-finetune")
    weighted = replace(recipe.pixel_finetune, task=replace(recipe.pixel_finetune.task, commitment_weight=9.0))
    plain = SemHiTokExperiment("plain", recipe, stages=stages).run(place, 0)
    changed = SemHiTokExperiment("weighted", replace(recipe, pixel_finetune=weighted), stages=stages).run(place, 0)
    assert trained("pixel") == pixel, "the pixel stage was trained again"
    assert len(trained("pixel-finetune") - finetuned) == 2
    assert plain["psnr"] != changed["psnr"]


def test_adaptive_sizes_share_out_the_vocabulary_of_uniform_ones(place: ExperimentContext, recipe: Recipe):
    experiment = SemHiTokExperiment("adaptive", recipe, adaptive=True)
    assert experiment.run(place, 0)["vocabulary"] == 64
    config = json.loads((experiment.train(place, 0) / "config.json").read_text())
    sizes = config["subcodebook_sizes"]
    assert sum(sizes) == 64
    assert len(set(sizes)) > 1, "all semantic codes got as many"


def test_what_was_trained_on_other_images_is_not_taken(place: ExperimentContext, recipe: Recipe, tmp_path: Path):
    base = SemHiTokExperiment("base", recipe)
    before = base.run(place, 0)
    other = replace(place, train=ImageFolder(save_images(tmp_path / "others", count=20)))
    assert base.run(other, 0)["psnr"] != before["psnr"]
    assert base.run(place, 0) == before


def test_settings_name_the_network_of_a_perceptual_loss_where_one_is_used(recipe: Recipe):
    stages = ("semantic", "pixel", "pixel-finetune")
    weighted = replace(recipe.pixel_finetune, task=replace(recipe.pixel_finetune.task, perceptual_weight=0.3))
    settings = SemHiTokExperiment("weighted", replace(recipe, pixel_finetune=weighted), stages=stages).settings()
    assert settings["pixel-finetune"]["perceptual_depth"] == recipe.perceptual_depth
    assert "perceptual_depth" not in settings["pixel"]


def test_settings_name_what_was_chosen(recipe: Recipe):
    settings = SemHiTokExperiment("base", recipe).settings()
    assert settings["model"]["subcodebook_size"] == 4
    assert settings["pixel"]["steps"] == 12
    assert "decoder" not in settings
    json.dumps(settings)
