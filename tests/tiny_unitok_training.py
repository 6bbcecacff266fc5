"""A tiny UniTok in training, captions, feed and recipe: shared by the tests of its task, recipes and command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.tiny import loop_config, optimizer, save_images, shake, tiny_images, tiny_options
from tests.tiny_unitok import SIZES
from torch import nn
from transformers import CLIPTextConfig

from semhitok.data.feed import MemoryFeed
from semhitok.data.sources import ImageFolder
from semhitok.recipes.recipe import DataConfig
from semhitok.recipes.unitok_recipe import PatchSize, TextTower, UniTokRecipe
from semhitok.runs.unitok import run_unitok
from semhitok.tokenizers import UniTokConfig, UniTokModel
from semhitok.training.tasks.unitok import INPUT_IDS, UniTokTask
from semhitok.training.tasks.unitok_config import UniTokTrainingConfig

VOCABULARY, TEXT_LENGTH = 20, 6
ARCHITECTURE: dict[str, Any] = {
    **SIZES,
    "stage_widths": (8, 8, 16),
    "depth": 2,
    "drop_path": 0.0,
    "num_codebooks": 2,
    "codebook_size": 8,
    "embed_dim": 8,
}
WORDS = ("red", "green", "blue", "dark", "bright", "plain")


def text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        projection_dim=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=VOCABULARY - 2,
        eos_token_id=VOCABULARY - 1,
        pad_token_id=VOCABULARY - 1,
    )


def unitok_model(seed: int = 0, *, text: bool = True, **changes: Any) -> UniTokModel:
    """32 px, 4 tokens x 2 codes of 8; random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fields = ARCHITECTURE | changes
        model = UniTokModel(UniTokConfig(**fields, text_config=text_config() if text else None))
        shake(model, 0.02)
    return model


def captioned_feed(count: int = 24) -> MemoryFeed:
    """Images with input ids (count,1,TEXT_LENGTH): start, one to four words, end and padding."""
    generator = np.random.default_rng(0)
    ids = np.full((count, 1, TEXT_LENGTH), VOCABULARY - 1, dtype=np.int32)
    ids[:, :, 0] = VOCABULARY - 2
    for row in ids[:, 0]:
        words = generator.integers(1, TEXT_LENGTH - 1)
        row[1 : 1 + words] = generator.integers(0, VOCABULARY - 2, words)
    return MemoryFeed(tiny_images(count), seed=3, extras={INPUT_IDS: ids})


def unitok_config(**changes: Any) -> UniTokTrainingConfig:
    """Initialisation, revival and the adversarial loss all begin within a run of twelve steps."""
    fields: dict[str, Any] = {
        "optimizer": optimizer(),
        "discriminator_optimizer": optimizer(1e-3, beta1=0.5, weight_decay=0.0),
        "perceptual_weight": 0.0,
        "adversarial_weight": 0.1,
        "adversarial_start": 3,
        "initialise_step": 2,
        "revive_every": 3,
        "revive_until": 0.8,
        "revive_below": 0.5,
        "average_decay": 0.9,
        "precision": "fp32",
    }
    return UniTokTrainingConfig(**(fields | changes))


def unitok_task(
    model: UniTokModel | None = None,
    *,
    perceptual: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    fresh_codebook: bool = False,
    **changes: Any,
) -> UniTokTask:
    """A task on ``model``, or on a new tiny one, without adversarial loss where no discriminator is given."""
    if discriminator is None:
        changes.setdefault("adversarial_weight", 0.0)
    return UniTokTask(
        model or unitok_model(),
        unitok_config(**changes),
        perceptual=perceptual,
        discriminator=discriminator,
        fresh_codebook=fresh_codebook,
    )


def tiny_unitok_recipe(**changes: Any) -> UniTokRecipe:
    recipe = UniTokRecipe(
        name="tiny_unitok",
        model=dict(ARCHITECTURE),
        text=TextTower(vocab_size=530, context_length=8, width=16, layers=1, heads=2),
        discriminator=PatchSize(channels=8),
        data=DataConfig(flip=False, workers=0),
        loop=loop_config(),
        task=unitok_config(),
    )
    return replace(recipe, **changes)


def save_captioned(folder: Path, count: int = 24, *, without: int | None = None) -> Path:
    """PNG files with a text each, but for the image numbered ``without``."""
    save_images(folder, count)
    for index in range(count):
        if index != without:
            words = [WORDS[(index * step + step) % len(WORDS)] for step in (1, 5)]
            (folder / f"{index:03d}.txt").write_text(f"a {words[0]} and {words[1]} picture")
    return folder


def run_tiny_unitok(recipe: UniTokRecipe, images: Path, directory: Path, **options: Any):
    """``run_unitok`` on a folder of images, without a word."""
    given = {name: options.pop(name) for name in ("validation", "images") if name in options}
    return run_unitok(recipe, ImageFolder(images), tiny_options(directory, **options), **given)
