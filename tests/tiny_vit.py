"""The systems of the comparison at tiny size: recipes, models, and runs on a folder of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tests.tiny import SIZE, loop_config, optimizer, pixels, shake, tiny_options, tower_config

from semhitok.data.sources import ImageFolder
from semhitok.recipes import VIT_RECIPES
from semhitok.recipes.recipe import DataConfig
from semhitok.recipes.vit_recipe import ViTRecipe, ViTStageRecipe
from semhitok.runs.vit import run_vit
from semhitok.teachers import TeacherConfig
from semhitok.tokenizers.vit_tokenizer import ViTTokenizerConfig, ViTTokenizerModel

BACKBONE: dict[str, Any] = {
    "image_size": SIZE,
    "encoder_layers": 1,
    "encoder_width": 16,
    "encoder_heads": 2,
    "decoder_layers": 1,
    "decoder_width": 16,
    "decoder_heads": 2,
    "semantic_decoder_layers": 1,
}
SYSTEMS = list(VIT_RECIPES)


def tiny_vit_recipe(system: str, teacher: Path | str = "unused", **task: Any) -> ViTRecipe:
    """The system's own quantizer, losses and weights on a tiny backbone, for a few steps."""

    def shrunk(stage: ViTStageRecipe) -> ViTStageRecipe:
        fields = {"optimizer": optimizer(), "revive_every": 3, "average_decay": 0.9, "precision": "fp32", **task}
        fields["initialise_step"] = None if stage.task.initialise_step is None else 2
        return ViTStageRecipe(loop_config(steps=4), replace(stage.task, **fields))

    recipe = VIT_RECIPES[system]()
    later = recipe.understanding
    return replace(
        recipe,
        model=recipe.model | BACKBONE,
        teacher=str(teacher),
        teacher_image_size=SIZE,
        data=DataConfig(flip=False, workers=0),
        reconstruction=shrunk(recipe.reconstruction),
        understanding=None if later is None else shrunk(later),
    )


def tiny_vit_config(system: str, **changes: Any) -> ViTTokenizerConfig:
    """The configuration that a run would build, with a random teacher of 16 channels."""
    recipe = tiny_vit_recipe(system)
    fields: dict[str, Any] = {"system": system, **recipe.model}
    if fields.get("semantic_channels"):
        fields["target_dim"] = 16
    if fields.get("semantic_dim"):
        fields["teacher_config"] = TeacherConfig(tower_config(), image_size=SIZE)
    return ViTTokenizerConfig(**(fields | changes))


def tiny_vit(system: str = "vqgan", seed: int = 0, **changes: Any) -> ViTTokenizerModel:
    """Random weights, codebooks fitted to random images, so that many codes are in use."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ViTTokenizerModel(tiny_vit_config(system, **changes)).eval()
        frozen = {name: tensor.clone() for name, tensor in model.quantizer.state_dict().items()}
        shake(model)
    model.quantizer.load_state_dict(frozen)
    if model.config.encoder:
        with torch.no_grad():
            model.quantizer.initialise(
                model.features(pixels(24, seed=1000 + seed)).flatten(0, 1), seed=seed, iterations=2
            )
    return model


def run_tiny_vit(recipe: ViTRecipe, images: Path, directory: Path, **options: Any):
    """``run_vit`` on a folder of images, without a word."""
    return run_vit(recipe, ImageFolder(images), tiny_options(directory, **options))
