"""Scenes small enough to know everything about: coloured squares on a dark ground, as tars with their ground truth."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from tests.data.records_on_disk import write_tar
from torch import Tensor, nn

from semhitok.evaluation.text_to_image.judge_features import GridFeatures
from semhitok.scenes.compose import Scene, caption_of, relations_between
from semhitok.scenes.placing import SceneObject
from semhitok.scenes.questions import captions
from semhitok.scenes.shards import metadata
from semhitok.types import Encoded

SIZE, CELL, GRID = 32, 4, 8
COLOURS = {"cat": (230, 20, 20), "dog": (20, 230, 20), "house": (20, 20, 230)}


def scene(objects: list[tuple[str, int, int]], seed: int = 0, side: int = 6) -> Scene:
    """Squares of ``side`` pixels with these (concept, left, top), on faint noise."""
    image = np.random.default_rng(seed).integers(0, 40, (SIZE, SIZE, 3), dtype=np.uint8)
    placed = []
    for concept, left, top in objects:
        image[top : top + side, left : left + side] = COLOURS[concept]
        placed.append(SceneObject("", concept, "thing", "photo", (left, top, left + side, top + side)))
    names = [thing.concept for thing in placed]
    caption = caption_of(names, "noise") if names else "a photo of noise"
    return Scene(image, tuple(placed), relations_between(placed, SIZE, SIZE), "noise", (), caption, 1.0)


def random_scenes(count: int, seed: int = 0) -> list[Scene]:
    """None to three squares each, apart from each other."""
    random = np.random.default_rng(seed)
    found = []
    for index in range(count):
        places = random.permutation(9)[: random.integers(0, 4)]
        objects = [
            (
                str(random.choice(list(COLOURS))),
                int(place % 3 * 11 + random.integers(4)),
                int(place // 3 * 11 + random.integers(4)),
            )
            for place in places
        ]
        found.append(scene(objects, seed=1000 * seed + index))
    return found


def write_scenes(folder: Path, scenes: list[Scene]) -> Path:
    samples = []
    for each in scenes:
        buffer = io.BytesIO()
        Image.fromarray(each.image).save(buffer, "PNG")
        samples.append({".png": buffer.getvalue(), ".json": json.dumps(metadata(each, [])).encode()})
    write_tar(folder / "scenes-00000.tar", samples)
    return folder


def captions_of(each: Scene) -> tuple[str, ...]:
    return tuple(captions(each))


class CoarseTokenizer(nn.Module):
    """Every pixel becomes one of 6 x 6 x 6 colours; ``seen`` counts the images."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(image_size=SIZE)
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = 0

    def encode(self, pixel_values: Tensor) -> Encoded:
        self.seen += len(pixel_values)
        levels = ((pixel_values + 1) / 2 * 5).round().long()
        ids = rearrange(levels[:, 0] * 36 + levels[:, 1] * 6 + levels[:, 2], "b h w -> b (h w)")
        return Encoded(ids=ids, grid=(SIZE, SIZE))

    def decode(self, ids: Tensor) -> Tensor:
        levels = torch.stack([ids // 36, ids // 6 % 6, ids % 6], dim=1)
        return rearrange(levels, "b c (h w) -> b c h w", h=SIZE) / 5 * 2 - 1


def mean_colours() -> GridFeatures:
    """Features in place of a network: the mean colour of each cell."""
    return GridFeatures("mean colours", 3, GRID, lambda images_BCHW: F.avg_pool2d(images_BCHW, CELL))
