"""The recipes: the paper's numbers, the design's sizes, and no value that nothing reads."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import ARCHITECTURE, loop_config, pixel_config, run_tiny, tiny_recipe
from torch import Tensor, nn
from transformers import SiglipVisionConfig, ViTConfig, ViTModel

from semhitok.recipes import RECIPES, Recipe
from semhitok.recipes.recipe import BUILT_IN_TEACHER, DataConfig, EnhancedDecoder, PixelStage, SemanticStage
from semhitok.runs import semhitok as stages
from semhitok.teachers import TeacherConfig
from semhitok.tokenizers import SemHiTokConfig, SemHiTokModel
from semhitok.training.loop import LoopConfig
from semhitok.training.optim import OptimizerConfig
from semhitok.training.tasks.pixel_config import PixelConfig
from semhitok.training.tasks.semantic_config import SemanticConfig

PAPER = ("semhitok_256", "semhitok_256_m8", "semhitok_384")
# As their publishers' configurations have it: width, feed-forward, layers, heads, image, patch.
TOWERS = {
    "google/siglip-large-patch16-256": (1024, 4096, 24, 16, 256, 16),
    "google/siglip-so400m-patch14-384": (1152, 4304, 27, 16, 384, 14),
}


def teacher_of(recipe: Recipe) -> TeacherConfig:
    if recipe.teacher == BUILT_IN_TEACHER:
        return TeacherConfig.efficientnet_lite0(recipe.teacher_image_size)
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    tower = SiglipVisionConfig(**dict(zip(names, TOWERS[recipe.teacher], strict=True)))
    return TeacherConfig(tower, recipe.teacher_image_size, recipe.teacher_layer)


def on_meta(recipe: Recipe, **changes: Any) -> SemHiTokModel:
    """The model of a recipe, without memory for its weights."""
    with torch.device("meta"):
        return SemHiTokModel(SemHiTokConfig(teacher_of(recipe), **(recipe.model | changes)))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def vit(width: int, layers: int, heads: int) -> int:
    """Parameters of transformers' ViT."""
    config = ViTConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width
    )
    with torch.device("meta"):
        return parameters(ViTModel(config, add_pooling_layer=False))


def test_the_recipes_of_the_issue_are_there():
    assert set(RECIPES) == {"nano", "mini", *PAPER}
    for name, recipe in RECIPES.items():
        assert recipe().name == name
        assert (recipe.__doc__ or "").strip()


@pytest.mark.parametrize(
    ("name", "size", "tokens", "codes"),
    [
        ("nano", 64, 64, (1024, 8)),
        ("mini", 128, 256, (512, 32)),
        ("semhitok_256", 256, 256, (16_384, 12)),
        ("semhitok_256_m8", 256, 256, (16_384, 8)),
        ("semhitok_384", 384, 729, (16_384, 12)),
    ],
)
def test_every_recipe_builds_with_the_sizes_of_the_design(name: str, size: int, tokens: int, codes: tuple[int, int]):
    recipe = RECIPES[name]()
    model = on_meta(recipe)
    config = model.config
    assert (config.image_size, model.num_tokens) == (size, tokens)
    assert (config.semantic_codebook_size, config.subcodebook_size) == codes
    assert model.vocab_size == codes[0] * codes[1] == len(model.pixel_quantizer.codebook_KmD.flatten(0, 1))
    assert config.semantic_dim == 48
    assert config.semantic_quantizer == "ema"
    larger = recipe.enhanced_decoder
    on_meta(recipe, decoder_layers=larger.layers, decoder_width=larger.width, decoder_heads=larger.heads)
    assert larger.layers > config.decoder_layers
    assert not larger.grow or (larger.width, larger.heads) == (config.decoder_width, config.decoder_heads)


def test_the_papers_vocabularies():
    assert [on_meta(RECIPES[name]()).vocab_size for name in PAPER] == [196_608, 131_072, 196_608]


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_towers_are_vit_base_and_vit_large(name: str):
    recipe = RECIPES[name]()
    model, larger = on_meta(recipe), recipe.enhanced_decoder
    base, large = vit(768, 12, 12), vit(1024, 24, 16)
    assert base == pytest.approx(86e6, rel=0.01)
    assert large == pytest.approx(303e6, rel=0.01)
    assert parameters(model.pixel_encoder) == pytest.approx(base, rel=0.02)
    assert parameters(model.pixel_decoder) == pytest.approx(base, rel=0.02)
    sizes = {"decoder_layers": larger.layers, "decoder_width": larger.width, "decoder_heads": larger.heads}
    assert parameters(on_meta(recipe, **sizes).pixel_decoder) == pytest.approx(large, rel=0.02)
    assert len(model.semantic.decoder.transformer.blocks) == 3


@pytest.mark.parametrize("name", PAPER)
def test_table_3(name: str):
    recipe = RECIPES[name]()
    settings = [recipe.semantic, recipe.pixel, recipe.pixel_finetune, recipe.decoder]
    assert [part.task.optimizer.learning_rate for part in settings] == [1e-4, 1e-4, 4e-5, 2e-5]
    assert [part.loop.batch_size for part in settings] == [256] * 4
    images = [part.loop.steps * 256 for part in settings]
    # 50M, 40 epochs of ImageNet-1K, 20M, 20M + 20M images, to within one batch.
    for found, stated in zip(images, (50_000_000, 40 * 1_281_167, 20_000_000, 40_000_000), strict=True):
        assert stated - 256 < found <= stated
    assert [part.task.decoder_only for part in settings[1:]] == [False, False, True]


@pytest.mark.parametrize("name", RECIPES)
def test_what_begins_at_a_step_begins_within_the_run(name: str):
    recipe = RECIPES[name]()
    for part in (recipe.pixel, recipe.pixel_finetune, recipe.decoder):
        task, steps = part.task, part.loop.steps
        assert task.adversarial_weight == 0 or task.adversarial_start < steps / 2
        assert task.perceptual_weight == 0 or task.perceptual_start < steps / 2
        assert 0 < task.initialise_step < task.revive_until * steps
        assert task.revive_every < steps / 4
    semantic = recipe.semantic
    assert semantic.task.initialise_step < semantic.loop.steps / 4 > semantic.task.revive_every


def separate(value: Any) -> Any:
    """The same, with no dataclass in two places."""
    if not dataclasses.is_dataclass(value):
        return value
    return replace(value, **{field.name: separate(getattr(value, field.name)) for field in dataclasses.fields(value)})  # type: ignore[type-var]


def paths_of(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every dataclass in a recipe by its path, such as ``pixel.task.``."""
    found = {prefix: value}
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if dataclasses.is_dataclass(part):
            found |= paths_of(part, f"{prefix}{field.name}.")
    return found


def recorder(places: dict[int, str], read: set[str]) -> Callable:
    def record(self: Any, name: str) -> Any:
        reader = sys._getframe(1).f_code.co_filename
        if id(self) in places and not reader.endswith("dataclasses.py"):  # storing a recipe is not reading it
            read.add(places[id(self)] + name)
        return object.__getattribute__(self, name)

    return record


class Distance(nn.Module):
    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square().mean(dim=(1, 2, 3))


def test_every_value_of_a_recipe_is_read(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    task = pixel_config(perceptual_weight=0.1)
    pixel = PixelStage(loop=loop_config(steps=8), task=task)
    recipe = separate(
        tiny_recipe(
            inputs / "teacher",
            model=ARCHITECTURE | {"semantic_quantizer": "vanilla"},  # the EMA codebook has no codebook loss
            pixel=pixel,
            pixel_finetune=pixel,
            decoder=replace(pixel, task=replace(task, decoder_only=True)),
        )
    )
    every = paths_of(recipe)
    kinds = (Recipe, DataConfig, EnhancedDecoder, SemanticStage, PixelStage, LoopConfig, SemanticConfig)
    kinds += (PixelConfig, OptimizerConfig)
    assert {type(value) for value in every.values()} == set(kinds)
    expected = {path + field.name for path, value in every.items() for field in dataclasses.fields(value)}
    read: set[str] = set()
    record = recorder({id(value): path for path, value in every.items()}, read)
    monkeypatch.setattr(stages, "load_perceptual", lambda kind, depth: Distance())
    for kind in kinds:
        monkeypatch.setattr(kind, "__getattribute__", record)
    run_tiny(recipe, inputs / "images", tmp_path)
    run_tiny(recipe, inputs / "images", tmp_path, ("joint",))
    # In stage 3 the codebook is not trained; before it, in stage 2b, it is trained but not set anew.
    idle = {"codebook_weight", "commitment_weight", "revive_until", "revive_below"}
    unread = {f"decoder.task.{name}" for name in idle}
    # The teacher does not run in these stages: ids of images in memory are computed before.
    unread |= {f"{name}.task.teacher_precision" for name in ("pixel", "pixel_finetune", "decoder")}
    assert expected - read == unread
