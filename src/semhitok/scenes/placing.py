"""Placement of cut-outs on a canvas at random sizes, angles and positions with little overlap, and their exact boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from semhitok.scenes.cutouts import CutOut, CutOutLibrary

MAXIMUM_PASTED = 0.5  # fraction of the pixels that drawn cut-outs may cover, so that at least half stays photographic
MAXIMUM_OVERLAP = 0.03  # intersection over the smaller box: objects stay recognisable, so the ground truth stays true
LARGEST_ENLARGEMENT = 1.5  # of a cut-out's own pixels
PLACING_TRIES = 24
VISIBLE = 64  # alpha above which a pixel counts as part of the object
# Longer side of an object as a fraction of the image's shorter side, by the number of objects.
SIDE_RANGES = {1: (0.35, 0.7), 2: (0.3, 0.52), 3: (0.25, 0.42), 4: (0.22, 0.36)}

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class SceneObject:
    """One pasted cut-out.

    Attributes:
        name: name of the cut-out in the library.
        concept, category, style: from the library.
        box: left, top, right, bottom in pixels (right and bottom exclusive), tight around the visible part.
    """

    name: str
    concept: str
    category: str
    style: str
    box: Box


def pick(random: np.random.Generator, distribution: np.ndarray) -> int:
    """Sample an index from a cumulative distribution."""
    return min(int(np.searchsorted(distribution, random.random(), side="right")), len(distribution) - 1)


def paste(
    random: np.random.Generator, canvas: Image.Image, chosen: Sequence[CutOut], library: CutOutLibrary
) -> tuple[tuple[SceneObject, ...], float]:
    """Paste the objects that fit; one without a free place, even if smaller, is omitted; the first always fits.

    Returns:
        The objects in the order of pasting, and the fraction of the pixels not covered by drawn cut-outs (photo cut-outs do
        not count).
    """
    objects: list[SceneObject] = []
    covered = 0.0
    for entry in chosen:
        low, high = SIDE_RANGES[len(chosen)]
        side = (low + (high - low) * random.random()) * min(canvas.size)
        placed = _fitted(random, library.image(entry), side, canvas.size, [item.box for item in objects])
        if placed is None:
            continue
        picture, place = placed
        alpha = np.asarray(picture.getchannel("A"))
        area = float((alpha > VISIBLE).sum()) / (canvas.width * canvas.height)
        if entry.style != "photo" and covered + area > MAXIMUM_PASTED:
            continue
        canvas.paste(picture, place, picture)
        left, top, right, bottom = _visible_box(alpha)
        box = (place[0] + left, place[1] + top, place[0] + right, place[1] + bottom)
        objects.append(SceneObject(entry.name, entry.concept, entry.category, entry.style, box))
        covered += area if entry.style != "photo" else 0.0
    return tuple(objects), 1.0 - covered


def _fitted(
    random: np.random.Generator, image: Image.Image, side: float, canvas: tuple[int, int], taken: Sequence[Box]
) -> tuple[Image.Image, tuple[int, int]] | None:
    for shrink in (1.0, 0.75, 0.55):
        picture = _transformed(random, image, side * shrink)
        place = _free_place(random, picture, canvas, taken)
        if place is not None:
            return picture, place
    return None


def _transformed(random: np.random.Generator, picture: Image.Image, side: float) -> Image.Image:
    """The image scaled to a longer side of about ``side``, randomly mirrored, rotated a little and changed in brightness."""
    scale = min(side / max(picture.size), LARGEST_ENLARGEMENT)
    size = (max(2, round(picture.width * scale)), max(2, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if random.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle = float(random.normal(0.0, 10.0)) if random.random() < 0.5 else 0.0
    if abs(angle) > 2.0:
        picture = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    gain = 0.85 + 0.2 * random.random()
    pixels = np.array(picture)
    pixels[..., :3] = np.minimum(np.rint(np.arange(256) * gain), 255).astype(np.uint8)[pixels[..., :3]]
    return Image.fromarray(pixels)


def _free_place(
    random: np.random.Generator, picture: Image.Image, canvas: tuple[int, int], taken: Sequence[Box]
) -> tuple[int, int] | None:
    room = (canvas[0] - picture.width, canvas[1] - picture.height)
    if min(room) < 0:
        return None
    for _ in range(PLACING_TRIES):
        left, top = int(random.integers(room[0] + 1)), int(random.integers(room[1] + 1))
        box = (left, top, left + picture.width, top + picture.height)
        if all(overlap(box, other) <= MAXIMUM_OVERLAP for other in taken):
            return left, top
    return None


def overlap(one: Box, other: Box) -> float:
    """Intersection over the area of the smaller box."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((one[2] - one[0]) * (one[3] - one[1]), (other[2] - other[0]) * (other[3] - other[1]))
    return width * height / smaller


def _visible_box(alpha: np.ndarray) -> Box:
    rows = np.flatnonzero((alpha > VISIBLE).any(axis=1))
    columns = np.flatnonzero((alpha > VISIBLE).any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
