"""Ground truth of composed scenes, in fractions of the image side, with the images.

Shapes: N scenes, C = 3 channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semhitok.data.reading import SizedImages
from semhitok.data.sample import ImageSource, Sample
from semhitok.data.sources import open_source
from semhitok.scenes.compose import relations_between
from semhitok.scenes.placing import SceneObject

Progress = Callable[[str, int, int], None]
"""Called with (activity, done, total)."""

STEPS = 15 * 2**12
"""Positions are rounded to whole steps of the side, since the composer's rule uses pixels. Centres of pixels and of a
judge's cells are whole steps at all usual sizes, so that positions on a diagonal stay on it."""


@dataclass(frozen=True)
class Placed:
    """A thing and the centre of its box: x from the left, y from the top, both in [0,1]."""

    concept: str
    x: float
    y: float


@dataclass(frozen=True)
class SceneTruth:
    """Ground truth of a scene.

    Attributes:
        objects: objects in the order of pasting; empty for a bare photograph.
        relations: (i, relation, j) between objects, see ``scenes.compose.relations_between``.
        captions: the whole caption, the objects alone, and one for each relation between single things.
    """

    objects: tuple[Placed, ...]
    relations: tuple[tuple[int, str, int], ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class TrueScenes:
    """Images of scenes with their ground truth.

    Attributes:
        images: (N,3,H,W) uint8.
        truths: ground truth of each image.
        fingerprint: digest of the folder's names, order and sizes.
    """

    images: Tensor
    truths: tuple[SceneTruth, ...]
    fingerprint: str


def read_scenes(
    folder: Path | str, size: int, *, limit: int | None = None, bare: bool = True, progress: Progress | None = None
) -> TrueScenes:
    """Read scenes with their ground truth.

    Args:
        folder: folder of webdataset tars, as written by ``semhitok data scenes``.
        size: side in pixels to which images are squeezed.
        limit: at most this many, evenly spaced; None for all.
        bare: keep photographs without objects.
        progress: called after every batch.

    Raises:
        ValueError: there are no images, too many bad ones, or none with labelled objects.
    """
    source = open_source(folder)
    found: list[tuple[Tensor, SceneTruth]] = []
    reader = SizedImages(_WithSizes(source), size, fit="resize", limit=limit, batch_size=256)
    for batch in reader:
        for image_CHW, metadata in zip(batch.images, batch.metadata, strict=True):
            truth = truth_of(metadata, *metadata["size"])
            if truth is not None and (bare or truth.objects):
                found.append((image_CHW, truth))
        if progress is not None:
            progress("reading scenes", batch.positions[-1] + 1, len(reader))
    if not any(truth.objects for _, truth in found):
        raise ValueError(f"{folder}: no image has objects with boxes in its metadata; scenes are needed")
    images, truths = zip(*found, strict=True)
    return TrueScenes(torch.stack(images), truths, source.fingerprint)


def truth_of(metadata: dict[str, Any], width: int, height: int) -> SceneTruth | None:
    """The ground truth in the JSON of an image of width x height pixels; None if it does not describe a scene."""
    if not isinstance(metadata.get("objects"), list) or not isinstance(metadata.get("captions"), list):
        return None
    objects = []
    for entry in metadata["objects"]:
        left, top, right, bottom = entry["box"]
        objects.append(Placed(str(entry["concept"]), (left + right) / 2 / width, (top + bottom) / 2 / height))
    relations = tuple((int(one), str(relation), int(other)) for one, relation, other in metadata["relations"])
    return SceneTruth(tuple(objects), relations, tuple(map(str, metadata["captions"])))


def relations_of(things: Sequence[Placed]) -> set[tuple[int, str, int]]:
    """(i, relation, j) for all pairs of different concepts, by the rule and the margin of the composer."""
    points = [(round(thing.x * STEPS), round(thing.y * STEPS)) for thing in things]
    boxed = [SceneObject("", thing.concept, "", "", (x, y, x, y)) for thing, (x, y) in zip(things, points, strict=True)]
    return set(relations_between(boxed, STEPS, STEPS))


def concepts_of(truths: Iterable[SceneTruth]) -> tuple[str, ...]:
    """All visible concepts, sorted."""
    return tuple(sorted({thing.concept for truth in truths for thing in truth.objects}))


class _WithSizes:
    """A source that adds the image size, in whose pixels boxes are given, to the metadata."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    def __len__(self) -> int:
        return len(self.source)

    def key(self, index: int) -> str:
        return self.source.key(index)

    def load(self, index: int) -> Sample:
        sample = self.source.load(index)
        return replace(sample, metadata=sample.metadata | {"size": sample.image.size})
