"""Concept names: hand-written expectations."""

from __future__ import annotations

import pytest

from semhitok.scenes.naming import (
    canonical,
    clean_title,
    content_words,
    english,
    group,
    plural,
    singular,
    with_article,
)


@pytest.mark.parametrize(
    ("title", "file_name", "expected"),
    [
        ("Lime (Whole)", "", "lime"),
        ("red_flower_03", "", "red flower"),
        ("Clipart by Nicu Buculei - bee", "bee", "bee"),
        ("blueberry - iconset", "trash can", "blueberry"),
        ("ear - body part", "", "ear"),
        ("A blackbird", "", "blackbird"),
        ("Some blueberries", "", "blueberry"),
        ("Two wild boars", "", ""),
        ("", "", ""),
        ("A pair of plier", "", "pliers"),
        ("Pass&#233;", "", "passe"),
        ("Adult", "adult", ""),
    ],
)
def test_clean_title(title: str, file_name: str, expected: str) -> None:
    assert clean_title(title, file_name) == expected


def test_italian_titles() -> None:
    assert english("Gatto nero") == "cat"
    assert english("Macchina fotografica digitale") == "camera"
    assert english("Pomodori") == "tomato"
    assert english("Ontologia del vino") == ""


@pytest.mark.parametrize(
    ("word", "expected"),
    [("owls", "owl"), ("boxes", "box"), ("cherries", "cherry"), ("bus", "bus"), ("glasses", "glasses"),
     ("leaves", "leaf"), ("cactus", "cactus"), ("tomatoes", "tomato"), ("gas", "gas"), ("matches", "match")],
)  # fmt: skip
def test_singular(word: str, expected: str) -> None:
    assert singular(word) == expected


@pytest.mark.parametrize("name", ["owl", "box", "cherry", "wolf", "bus", "knife", "red apple", "toy", "match", "leaf"])
def test_plural_and_back(name: str) -> None:
    assert canonical(plural(name)) == name


def test_plural_of_phrases() -> None:
    assert plural("heart on fire") == "hearts on fire"
    assert plural("mouse") == "mice"
    assert plural("scissors") == "scissors"


def test_articles() -> None:
    assert [with_article(name) for name in ("owl", "wolf", "scissors", "unicorn", "hour")] == [
        "an owl", "a wolf", "scissors", "a unicorn", "an hour",
    ]  # fmt: skip


def test_groups_keep_kinds_of_a_thing_together() -> None:
    assert group("grey wolf") == group("wolf") == "wolf"
    assert group("heart with arrow") == "heart"
    assert group("headstone") == group("gravestone")
    assert group("woman with veil") == "woman with veil"  # 'woman' alone would put half of all people on one side
    assert content_words("hot dogs") == {"hot", "dog"}
