"""Splits of scenes by concept and by background photograph.

``train`` has most concepts and photographs. ``heldout`` shares no concept, cut-out or photograph with train. ``shared``
places the concepts of train on the photographs of heldout. Concepts are split by group (``naming.group``): 'grey wolf'
stays with 'wolf'. A concept whose name contains a word of the other side ('hot dog' if 'dog' is held out) is in neither.

``scenes-100`` has 100 common concepts of train with several cut-outs each, for question answering and image generation with
small models. ``scenes-100-shared`` places the same cut-outs on the photographs of heldout, ``scenes-100-test`` other cut-outs
of the same concepts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from semhitok.scenes.backgrounds import Photograph, PhotographLibrary
from semhitok.scenes.cutouts import CutOutLibrary
from semhitok.scenes.naming import content_words, group
from semhitok.scenes.photograph_table import GCOMPRIS
from semhitok.types import SceneSplit

HELD_OUT_CONCEPTS = 0.15
HELD_OUT_PHOTOGRAPHS = 0.2
COMMON_CONCEPTS = 100
PEOPLE = ("person", "face", "body part")
COMMON_MINIMUM = 3  # least number of cut-outs of a common concept


@dataclass(frozen=True)
class Material:
    """Cut-outs and photographs of one split."""

    cutouts: CutOutLibrary
    photographs: PhotographLibrary


def share(text: str) -> float:
    """A fixed pseudo-random number in [0,1) for a text, independent of machine and other data."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def is_held_out_concept(concept: str) -> bool:
    """Whether the concept's group is held out."""
    return share(f"concept {group(concept)}") < HELD_OUT_CONCEPTS


def head_nouns(concepts: Iterable[str]) -> frozenset[str]:
    """The groups that are single nouns, without groups that are phrases ('woman with veil')."""
    return frozenset(group(concept) for concept in concepts if " " not in group(concept))


def concept_sides(concepts: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """Train and held-out concepts; those that contain a word of the other side are in neither."""
    held_out_words = head_nouns(c for c in concepts if is_held_out_concept(c))
    train = frozenset(c for c in concepts if not is_held_out_concept(c) and not content_words(c) & held_out_words)
    train_words = head_nouns(train)
    held_out = frozenset(c for c in concepts if is_held_out_concept(c) and not content_words(c) & train_words)
    return train, held_out


def photograph_side(entry: Photograph, train: frozenset[str], held_out: frozenset[str]) -> Literal["train", "heldout"]:
    """The side of a photograph: that of its concept if it is known, otherwise determined by its name."""
    if not entry.scenery:
        words = frozenset(word for subject in entry.subjects for word in content_words(subject))
        if words & head_nouns(held_out):
            return "heldout"
        if words & head_nouns(train):
            return "train"
    # Photographs of one monument ('great wall', 'great wall of china') stay together; hand-listed ones all show
    # different places.
    named = entry.source == GCOMPRIS and entry.subjects[:1] == (entry.description,)
    place = " ".join(entry.description.split()[:2]) if named else entry.name
    return "heldout" if share(f"photograph {place.replace(' ', '')}") < HELD_OUT_PHOTOGRAPHS else "train"


def common_concepts(library: CutOutLibrary, count: int = COMMON_CONCEPTS) -> tuple[str, ...]:
    """Concepts with the most styles and cut-outs, one per group, ranked: single nouns without people and faces."""
    ranked = []
    for concept, entries in library.by_concept.items():
        plain = " " not in concept and group(concept) == concept
        if plain and len(entries) >= COMMON_MINIMUM and library.category_of[concept] not in PEOPLE:
            ranked.append((-len({entry.style for entry in entries}), -len(entries), concept))
    return tuple(concept for *_, concept in sorted(ranked)[:count])


def common_cutouts(library: CutOutLibrary, *, test: bool) -> CutOutLibrary:
    """The cut-outs of the common concepts; about a quarter of each, at least one, belong to the test side."""
    kept: set[str] = set()
    for concept in common_concepts(library):
        names = sorted((entry.name for entry in library.by_concept[concept]), key=share)
        cut = max(1, len(names) // 4)
        kept.update(names[:cut] if test else names[cut:])
    return library.subset(lambda entry: entry.name in kept)


def material(split: SceneSplit, cutouts: CutOutLibrary, photographs: PhotographLibrary | None) -> Material:
    """The cut-outs and photographs of a split.

    Args:
        split: one of the names above.
        cutouts: all cut-outs.
        photographs: all photographs; None if no scene needs any, on plain grounds.

    Raises:
        ValueError: it has no cut-outs or no backgrounds (too few sources were fetched).
    """
    train, held_out = concept_sides(cutouts.concepts)
    concepts = held_out if split == "heldout" else train
    chosen = cutouts.subset(lambda entry: entry.concept in concepts)
    if split.startswith("scenes-100"):
        chosen = common_cutouts(chosen, test=split == "scenes-100-test")
    if photographs is None:
        if not chosen.entries:
            raise ValueError(f"The fetched sources leave no cut-outs for the split {split!r}.")
        return Material(chosen, PhotographLibrary(chosen.folder, ()))
    side = "train" if split in ("train", "scenes-100") else "heldout"
    scenery = photographs.subset(lambda entry: photograph_side(entry, train, held_out) == side)
    if not chosen.entries or not any(entry.scenery for entry in scenery.entries):
        raise ValueError(f"The fetched sources leave no cut-outs or no backgrounds for the split {split!r}.")
    return Material(chosen, scenery)
