"""Composition of scenes: cut-outs on photographs or plain grounds, with the ground truth of their placement.

A scene is a pure function of (seed, index, size, material, ground): any worker can compose any scene in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from semhitok.scenes.backgrounds import Photograph, PhotographLibrary
from semhitok.scenes.cutouts import CutOut, CutOutLibrary
from semhitok.scenes.grounds import is_plain, plain_ground
from semhitok.scenes.naming import content_words, plural, with_article
from semhitok.scenes.placing import SceneObject, paste, pick
from semhitok.scenes.splits import Material
from semhitok.types import SceneGround

RELATION_MARGIN = 0.12  # of the image side: centres closer than this along an axis have no stated relation along it

# Numbers of objects in a scene that is not bare.
OBJECT_COUNTS = (1, 2, 3, 4)
COUNT_SHARES = (0.4, 0.3, 0.18, 0.12)
# A bare crop is sampled again below this standard deviation of green values (0-255), such as blurred sky.
FLAT = 10.0
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
REPEATED_SHARE = 0.4  # of scenes with several objects: these repeat a concept, for counting


@dataclass(frozen=True)
class Scene:
    """An image with its ground truth.

    Attributes:
        image: (H,W,3) uint8 RGB.
        objects: pasted objects, back to front; empty for a bare photograph.
        relations: (i, relation, j) for pairs of objects, relation in "left of", "right of", "above", "below".
        background: name of the photograph, or kind and colours of the plain ground.
        background_subjects: concepts that may be visible in the photograph.
        caption: an English phrase.
        photographic: fraction of the pixels not covered by drawn cut-outs; 0 on a plain ground.
        ground: "photograph" or "plain".
    """

    image: np.ndarray
    objects: tuple[SceneObject, ...]
    relations: tuple[tuple[int, str, int], ...]
    background: str
    background_subjects: tuple[str, ...]
    caption: str
    photographic: float
    ground: SceneGround = "photograph"


def compose(
    seed: int,
    index: int,
    height: int,
    width: int,
    material: Material,
    *,
    bare_share: float = 0.25,
    object_counts: tuple[int, ...] = OBJECT_COUNTS,
    ground: SceneGround = "photograph",
    series: str = "",
) -> Scene:
    """Compose scene number ``index``; with ``mixed`` grounds it is that of ``plain`` or that of ``photograph``.

    Args:
        seed: seed of the whole series.
        index: position in the series, from 0.
        height, width: size of the image in pixels.
        material: cut-outs and photographs of one split.
        bare_share: fraction of the scenes on photographs that are a crop without objects; no plain scene is bare.
        object_counts: allowed numbers of objects in the other scenes, a subset of OBJECT_COUNTS.
        ground: what lies behind the objects.
        series: a name that seeds plain scenes together with ``seed``, such as the split: splits that differ in photographs
            alone would otherwise have the same plain scenes.
    """
    if is_plain(ground, seed, index):
        random = np.random.default_rng((seed, index, *series.encode()))
        return _plain_scene(random, height, width, material.cutouts, object_counts)
    random = np.random.default_rng((seed, index))
    if random.random() < bare_share:
        photograph = _draw_photograph(random, material.photographs, scenery_only=False, avoid=frozenset())
        canvas = np.asarray(_background(random, photograph, material.photographs, height, width))
        for _ in range(3):
            if canvas[..., 1].std() >= FLAT:
                break
            photograph = _draw_photograph(random, material.photographs, scenery_only=False, avoid=frozenset())
            canvas = np.asarray(_background(random, photograph, material.photographs, height, width))
        return Scene(canvas, (), (), photograph.name, photograph.subjects, f"a photo of {photograph.description}", 1.0)
    chosen = _draw_cutouts(random, material.cutouts, object_counts)
    words = frozenset(word for entry in chosen for word in content_words(entry.concept))
    photograph = _draw_photograph(random, material.photographs, scenery_only=True, avoid=words)
    canvas = _background(random, photograph, material.photographs, height, width)
    objects, photographic = paste(random, canvas, chosen, material.cutouts)
    return Scene(
        np.asarray(canvas),
        objects,
        relations_between(objects, height, width),
        photograph.name,
        photograph.subjects,
        caption_of([item.concept for item in objects], photograph.description),
        photographic,
    )


def _plain_scene(
    random: np.random.Generator, height: int, width: int, library: CutOutLibrary, object_counts: tuple[int, ...]
) -> Scene:
    chosen = _draw_cutouts(random, library, object_counts)
    canvas, background = plain_ground(random, [library.image(entry) for entry in chosen], height, width)
    objects, _ = paste(random, canvas, chosen, library)
    relations = relations_between(objects, height, width)
    caption = caption_of([item.concept for item in objects])
    return Scene(np.asarray(canvas), objects, relations, background, (), caption, 0.0, "plain")


def _draw_cutouts(random: np.random.Generator, library: CutOutLibrary, counts: tuple[int, ...]) -> list[CutOut]:
    shares = np.array([COUNT_SHARES[OBJECT_COUNTS.index(count)] for count in counts])
    count = counts[pick(random, np.cumsum(shares / shares.sum()))]
    first = library.concepts[pick(random, library.concept_distribution)]
    concepts = [first]
    repeat = count > 1 and random.random() < REPEATED_SHARE
    copies = int(random.integers(2, count + 1)) if repeat else 1
    while len(concepts) < count - copies + 1:
        concept = library.concepts[pick(random, library.concept_distribution)]
        if not any(content_words(concept) & content_words(other) for other in concepts):
            concepts.append(concept)
    chosen = [_draw_entry(random, library, concept) for concept in concepts]
    again = chosen[0]
    for _ in range(copies - 1):  # mostly the same picture again; sometimes another picture of the same concept
        chosen.append(again if random.random() < 0.7 else _draw_entry(random, library, first))
    return chosen


def _draw_entry(random: np.random.Generator, library: CutOutLibrary, concept: str) -> CutOut:
    entries = library.by_concept[concept]
    return entries[int(random.integers(len(entries)))]


def _draw_photograph(
    random: np.random.Generator, library: PhotographLibrary, *, scenery_only: bool, avoid: frozenset[str]
) -> Photograph:
    """Sample a photograph, larger ones more often; one that shows an avoided word is resampled a few times."""
    distribution, entries = library.scenery_distribution if scenery_only else library.distribution
    entry = entries[pick(random, distribution)]
    for _ in range(8):
        if not avoid & frozenset(word for subject in entry.subjects for word in content_words(subject)):
            break
        entry = entries[pick(random, distribution)]
    return entry


def _background(
    random: np.random.Generator, entry: Photograph, library: PhotographLibrary, height: int, width: int
) -> Image.Image:
    """A random crop between the whole photograph and its native resolution, mirrored half of the time."""
    largest = min(
        1.0, entry.height / entry.width * width / height
    )  # crop width as a fraction of the photograph's width
    smallest = min(largest, max(width / entry.width, 0.3 * largest))
    crop = smallest * (largest / smallest) ** random.random()
    left = random.random() * (1 - crop)
    top = random.random() * (entry.height / entry.width - crop * height / width)
    image = library.crop(entry, (left, max(0.0, top), crop), height, width)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def relations_between(objects: Sequence[SceneObject], height: int, width: int) -> tuple[tuple[int, str, int], ...]:
    """Relations of pairs of different concepts whose centres are clearly apart along one axis, and further than along
    the other."""
    found = []
    for i, one in enumerate(objects):
        for j, other in enumerate(objects):
            if one.concept == other.concept:
                continue
            across = ((other.box[0] + other.box[2]) - (one.box[0] + one.box[2])) / 2 / width
            down = ((other.box[1] + other.box[3]) - (one.box[1] + one.box[3])) / 2 / height
            if across > RELATION_MARGIN and across > abs(down):
                found.append((i, "left of", j))
            if -across > RELATION_MARGIN and -across > abs(down):
                found.append((i, "right of", j))
            if down > RELATION_MARGIN and down > abs(across):
                found.append((i, "above", j))
            if -down > RELATION_MARGIN and -down > abs(across):
                found.append((i, "below", j))
    return tuple(found)


def caption_of(concepts: Sequence[str], background: str | None = None) -> str:
    """'two horses and an owl in front of green grass', or without the background."""
    counts: dict[str, int] = {}
    for concept in concepts:
        counts[concept] = counts.get(concept, 0) + 1
    phrases = [with_article(c) if n == 1 else f"{NUMBERS[n]} {plural(c)}" for c, n in counts.items()]
    listed = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    return listed if background is None else f"{listed} in front of {background}"
