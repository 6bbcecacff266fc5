"""Scenes without material: grey pictures with things that are said to be in them, and the project's own questions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tests.data.records_on_disk import write_tar

from semhitok.scenes.compose import Scene, caption_of, relations_between
from semhitok.scenes.placing import SceneObject
from semhitok.scenes.questions import questions
from semhitok.scenes.shards import encode_image, metadata

SIDE = 32
THINGS = {"apple": "food", "pear": "food", "grey wolf": "animal", "owl": "animal", "axe": "tool", "hammer": "tool"}


def made_up_scene(index: int, concepts: Sequence[str]) -> Scene:
    """Grey of value ``index``, the things somewhere; a bare photograph without things."""
    random = np.random.default_rng(index)
    corners = [tuple(random.integers(0, SIDE - 8, 2).tolist()) for _ in concepts]
    objects = tuple(
        SceneObject("a.png", concept, THINGS[concept], "emoji", (x, y, x + 8, y + 8))
        for concept, (x, y) in zip(concepts, corners, strict=True)
    )
    caption = caption_of(concepts, "green grass") if concepts else "a photo of green grass"
    relations = relations_between(objects, SIDE, SIDE)
    return Scene(np.full((SIDE, SIDE, 3), index, np.uint8), objects, relations, "grass", ("grass",), caption, 1.0)


def made_up_scenes(count: int, seed: int = 0) -> list[Scene]:
    """Up to three things each, some twice or thrice; every fifth is bare."""
    random = np.random.default_rng(seed)
    scenes = []
    for index in range(count):
        kinds = random.choice(list(THINGS), size=int(random.integers(1, 3)), replace=False).tolist()
        copies = int(random.integers(1, 4)) if random.random() < 0.5 else 1
        scenes.append(made_up_scene(index, [] if index % 5 == 4 else [kinds[0]] * copies + kinds[1:]))
    return scenes


def write_asked_scenes(
    folder: Path, scenes: Sequence[Scene], *, asked: bool = True, broken: Sequence[int] = ()
) -> Path:
    """As ``semhitok data scenes`` writes them; without questions where they are not ``asked``."""
    found = questions(scenes, 0) if asked else [[] for _ in scenes]
    samples = [
        {
            ".png": b"none" if index in broken else encode_image(scene.image, "png"),
            ".json": json.dumps(metadata(scene, own)).encode(),
        }
        for index, (scene, own) in enumerate(zip(scenes, found, strict=True))
    ]
    write_tar(folder / "scenes-100-00000.tar", samples)
    return folder
