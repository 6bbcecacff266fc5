"""A tokenizer simple enough to predict every figure by hand, and images with known labels."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor

from semhitok.types import Embedded, Encoded

LEVELS, SUBLEVELS, PATCH = 4, 8, 4


class GreyTokenizer:
    """Each patch becomes its mean brightness: ``LEVELS`` coarse steps (semantic), ``SUBLEVELS`` fine ones in each."""

    codes_per_token = 1
    vocab_size = LEVELS * SUBLEVELS

    def __init__(self, image_size: int = 16, predicted_size: int | None = None, offset: float = 0.0) -> None:
        self.config = SimpleNamespace(image_size=image_size, subcodebook_size=SUBLEVELS)
        self.predicted_size = predicted_size or image_size
        self.offset = offset
        self.num_tokens = (image_size // PATCH) ** 2

    def encode(self, pixel_values: Tensor) -> Encoded:
        rows = self.config.image_size // PATCH
        patches = rearrange(
            pixel_values[..., : rows * PATCH, : rows * PATCH], "b c (h p) (w q) -> b (h w) (c p q)", p=PATCH, q=PATCH
        )
        brightness = (patches.mean(dim=-1) + self.offset + 1) / 2
        ids = (brightness * self.vocab_size).long().clamp(0, self.vocab_size - 1)
        return Encoded(ids=ids, grid=(rows, rows), semantic_ids=ids // SUBLEVELS)

    def decode(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        rows = int(ids.shape[1] ** 0.5)
        patch = self.predicted_size // rows
        values = (ids + 0.5) / self.vocab_size * 2 - 1
        return repeat(values, "b (h w) -> b 3 (h p) (w q)", h=rows, p=patch, q=patch)

    def embed(self, ids: Tensor) -> Embedded:
        semantic, pixel = ids // SUBLEVELS, ids % SUBLEVELS
        return Embedded(
            semantic=torch.nn.functional.one_hot(semantic, LEVELS).float(),
            pixel=torch.nn.functional.one_hot(pixel, SUBLEVELS).float(),
        )


def write_scenes(folder: Path, count: int, seed: int) -> Path:
    """Noisy dark images labelled "night" and bright ones labelled "day", as scenes carry their labels."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    for index in range(count):
        bright = index % 2
        pixels = generator.integers(130 if bright else 20, 230 if bright else 120, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")
        objects = [
            {"concept": "speck", "category": "other", "box": [0, 0, 2, 2]},
            {"concept": f"thing {index % 6}", "category": "day" if bright else "night", "box": [2, 2, 14, 14]},
        ]
        (folder / f"{index:03d}.json").write_text(json.dumps({"objects": objects}))
    return folder
