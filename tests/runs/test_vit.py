"""Runs of the systems of the comparison: stages, cached features, the clustered table, resumption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny import changed, copy_of, save_images, save_teacher
from tests.tiny_vit import run_tiny_vit, tiny_vit_recipe

from semhitok.inference.loading import load_tokenizer, newest_model
from semhitok.teachers import Teacher
from semhitok.tokenizers.vit_tokenizer import ViTTokenizerModel


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    save_teacher(folder / "teacher")
    save_images(folder / "images")
    return folder


def test_toklip_is_a_finished_vqgan_with_a_second_stage(place: Path):
    recipe = tiny_vit_recipe("toklip", place / "teacher")
    assert run_tiny_vit(recipe, place / "images", place / "toklip").finished
    first = ViTTokenizerModel.from_pretrained(place / "toklip" / "reconstruction" / "model")
    assert newest_model(place / "toklip") == place / "toklip" / "understanding" / "model"
    last = load_tokenizer(place / "toklip")
    assert last.config.stages == ["reconstruction", "understanding"]
    assert last.config.provenance["understanding"]["system"] == "toklip"
    moved = changed(copy_of(first), last)  # pyright: ignore[reportArgumentType]
    assert {name.split(".")[0] for name in moved} == {"semantic_decoder"}
    before = copy_of(last)  # pyright: ignore[reportArgumentType]
    run_tiny_vit(recipe, place / "images", place / "toklip")
    assert changed(before, load_tokenizer(place / "toklip")) == set(), "a finished run is not trained again"  # pyright: ignore


def test_the_teacher_of_a_fed_tokenizer_is_the_given_one_and_cached_features_change_nothing(place: Path):
    recipe = tiny_vit_recipe("sde", place / "teacher")
    run_tiny_vit(recipe, place / "images", place / "sde")
    assert list((place / "sde" / "cache").glob("features-*.cache"))
    model = ViTTokenizerModel.from_pretrained(place / "sde" / "reconstruction" / "model")
    teacher = Teacher.from_pretrained(place / "teacher", image_size=32)
    assert model.teacher is not None
    assert changed(copy_of(teacher), model.teacher) == set()
    run_tiny_vit(replace(recipe, cache_limit=0), place / "images", place / "uncached")
    other = ViTTokenizerModel.from_pretrained(place / "uncached" / "reconstruction" / "model")
    for name, tensor in other.state_dict().items():
        if not name.startswith("quantizer."):  # the cache has half precision, and codes move to other vectors
            assert (tensor - model.state_dict()[name]).abs().mean() < 1e-2, name


def test_the_frozen_table_holds_centres_of_the_teachers_features(place: Path):
    recipe = tiny_vit_recipe("vqgan-lc", place / "teacher")
    recipe = replace(recipe, model=recipe.model | {"codebook_size": 12})
    run_tiny_vit(recipe, place / "images", place / "lc")
    model = ViTTokenizerModel.from_pretrained(place / "lc" / "reconstruction" / "model")
    table = model.quantizer.table_KT
    assert table.shape == (12, 16)
    torch.testing.assert_close(table.mean(dim=0), torch.zeros(16), atol=1e-5, rtol=0)
    random = tiny_vit_recipe("simvq", place / "teacher")
    other = replace(random, clustered_table=True, model=random.model | {"quantizer": "normalized"})
    with pytest.raises(ValueError, match="clustered_table needs quantizer projected, got normalized"):
        run_tiny_vit(other, place / "images", place / "wrong")
    with pytest.raises(ValueError, match=r"raise data\.memory_limit"):
        run_tiny_vit(replace(recipe, data=replace(recipe.data, memory_limit=0)), place / "images", place / "streamed")


def test_a_teacher_with_another_grid_is_refused(place: Path):
    recipe = replace(tiny_vit_recipe("vila-u", place / "teacher"), teacher_image_size=24)
    with pytest.raises(ValueError, match="the teacher has 9 tokens at 24 px, but the tokenizer has 16"):
        run_tiny_vit(recipe, place / "images", place / "grid")
    with pytest.raises(ValueError, match="vqgan has no stage understanding"):
        tiny_vit_recipe("vqgan").stage("understanding")
