"""Splits: nothing of one side is on the other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semhitok.scenes.backgrounds import PhotographLibrary
from semhitok.scenes.cutouts import CutOutLibrary
from semhitok.scenes.naming import content_words, group
from semhitok.scenes.splits import (
    common_concepts,
    common_cutouts,
    concept_sides,
    head_nouns,
    is_held_out_concept,
    material,
    photograph_side,
    share,
)

WORDS = [
    "dog",
    "hot",
    "apple",
    "grey",
    "wolf",
    "owl",
    "bus",
    "stop",
    "pie",
    "red",
    "car",
    "cup",
    "fire",
    "truck",
    "sun",
]
names = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True).map(" ".join)


@given(st.sets(names, max_size=60))
def test_no_head_noun_is_on_both_sides(concepts: set[str]) -> None:
    train, held_out = concept_sides(tuple(sorted(concepts)))
    assert not train & held_out
    train_heads, held_out_heads = head_nouns(train), head_nouns(held_out)
    assert not train_heads & held_out_heads
    assert not any(content_words(concept) & held_out_heads for concept in train)
    assert not any(content_words(concept) & train_heads for concept in held_out)


def test_sides_do_not_depend_on_what_else_is_there() -> None:
    assert is_held_out_concept("grey wolf") == is_held_out_concept("wolf")
    assert share("anything") == share("anything")
    shares = np.array([share(f"concept {number}") for number in range(4000)])
    assert np.abs(np.histogram(shares, 10, (0, 1))[0] / 4000 - 0.1).max() < 0.02


@pytest.fixture(scope="module")
def sides(cutouts: CutOutLibrary, backdrops: PhotographLibrary) -> tuple[CutOutLibrary, PhotographLibrary]:
    """The made-up world with enough concepts and places for every split: renamed copies over the same pixels."""
    renamed = [
        dataclasses.replace(entry, concept=f"{entry.concept}{letter}", name=f"{entry.name}{letter}")
        for letter in "abcdefghij"
        for entry in cutouts.entries
    ]
    return CutOutLibrary(cutouts.folder, tuple(renamed)), backdrops


def test_splits_share_what_they_should(sides: tuple[CutOutLibrary, PhotographLibrary]) -> None:
    train, held_out, shared = (material(split, *sides) for split in ("train", "heldout", "shared"))
    assert not set(train.cutouts.concepts) & set(held_out.cutouts.concepts)
    assert set(train.cutouts.concepts) == set(shared.cutouts.concepts)
    assert not set(train.photographs.entries) & set(held_out.photographs.entries)
    assert set(held_out.photographs.entries) == set(shared.photographs.entries)
    assert len(train.cutouts.concepts) > 4 * len(held_out.cutouts.concepts) > 0


def test_common_concepts_have_two_test_sides(sides: tuple[CutOutLibrary, PhotographLibrary]) -> None:
    train, shared, test = (material(split, *sides) for split in ("scenes-100", "scenes-100-shared", "scenes-100-test"))
    assert set(train.cutouts.entries) == set(shared.cutouts.entries)
    assert set(train.cutouts.concepts) == set(test.cutouts.concepts)
    assert not set(train.cutouts.entries) & set(test.cutouts.entries)
    assert set(shared.photographs.entries) == set(test.photographs.entries)
    assert not set(train.photographs.entries) & set(test.photographs.entries)


def test_a_photograph_of_a_concept_goes_with_it(backdrops: PhotographLibrary) -> None:
    portrait = next(entry for entry in backdrops.entries if entry.subjects == ("wolf",))
    assert photograph_side(portrait, frozenset({"owl"}), frozenset({"grey wolf"})) == "heldout"
    assert photograph_side(portrait, frozenset({"grey wolf"}), frozenset({"owl"})) == "train"


def test_common_concepts(cutouts: CutOutLibrary) -> None:
    chosen = common_concepts(cutouts, 5)
    assert len(chosen) == 5
    assert all(group(concept) == concept for concept in chosen)
    assert "grey wolf" not in common_concepts(cutouts)
    train, test = common_cutouts(cutouts, test=False), common_cutouts(cutouts, test=True)
    assert set(train.concepts) == set(test.concepts) == set(common_concepts(cutouts))
    assert not set(train.entries) & set(test.entries)
    assert len(train.entries) == 3 * len(test.entries)


def test_too_little_material_is_said(cutouts: CutOutLibrary, backdrops: PhotographLibrary) -> None:
    with pytest.raises(ValueError, match="'heldout'"):
        material("heldout", cutouts.subset(lambda entry: not is_held_out_concept(entry.concept)), backdrops)
