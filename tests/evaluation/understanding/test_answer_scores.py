"""Scores of answers and captions, against scikit-learn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from semhitok.evaluation.understanding.answer_scores import (
    CaptionScores,
    ConceptFinder,
    ExistenceScores,
    Share,
    accuracies,
    existence_scores,
    normalised,
)
from semhitok.scenes.questions import Question


@pytest.mark.parametrize("seed", range(5))
def test_existence_scores_are_those_of_scikit_learn(seed: int):
    random = np.random.default_rng(seed)
    expected = random.choice(["yes", "no"], 40).tolist()
    answers = random.choice(["yes", "no", "a dog"], 40, p=[0.5, 0.3, 0.2]).tolist()
    found = ExistenceScores.of(expected, answers)
    precision, recall, f1, _ = precision_recall_fscore_support(expected, answers, labels=["yes"], zero_division=0)
    assert found.accuracy.share == pytest.approx(accuracy_score(expected, answers))
    assert (found.precision, found.recall, found.f1) == pytest.approx((precision[0], recall[0], f1[0]))
    assert (found.yes, found.other) == (answers.count("yes") / 40, answers.count("a dog"))


def test_existence_scores_by_hand():
    """Three right yes, one wrong yes, two right no, one wrong no, one of neither kind where yes was right."""
    expected = ["yes"] * 3 + ["no"] + ["no"] * 2 + ["yes"] + ["yes"]
    answers = ["yes"] * 3 + ["yes"] + ["no"] * 2 + ["no"] + ["maybe"]
    error = math.sqrt(5 / 8 * 3 / 8 / 8)
    assert ExistenceScores.of(expected, answers) == ExistenceScores(
        Share(8, 5 / 8, error), 3 / 4, 3 / 5, 2 / 3, 4 / 8, 1
    )
    assert ExistenceScores.of(["yes", "no"], ["what", "no"]) == ExistenceScores(
        Share(2, 0.5, math.sqrt(1 / 8)), 0.0, 0.0, 0.0, 0.0, 1
    )


def test_questions_are_scored_by_kind_and_by_part():
    sideways, upright = "Is the owl to the left or to the right of the axe?", "Is the owl above or below the axe?"
    asked = [
        (Question("existence", "Is there an owl?", "yes", "owl", "random"), "Yes."),
        (Question("existence", "Is there an axe?", "no", "axe", "adversarial"), "yes"),
        (Question("existence", "Is there an elk?", "no", "elk"), "no"),
        (Question("position", sideways, "left", "owl"), " left "),
        (Question("position", sideways, "right", "owl"), "left"),
        (Question("position", upright, "above", "owl"), "above"),
        (Question("category", "What kind?", "household item", "tub"), "household"),
    ]
    questions, answers = zip(*asked, strict=True)
    found = accuracies(questions, answers)
    assert {group: (each.total, each.share) for group, each in found.items()} == {
        "existence": (3, 2 / 3),
        "existence, random": (1, 1.0),
        "existence, adversarial": (1, 0.0),
        "position": (3, 2 / 3),
        "position, left or right": (2, 0.5),
        "position, above or below": (1, 1.0),
        "category": (1, 0.0),
    }
    existence = existence_scores(questions, answers)
    assert list(existence) == ["existence", "existence, random", "existence, adversarial"]
    assert existence["existence"].accuracy == found["existence"]
    assert (existence["existence"].precision, existence["existence"].recall) == (0.5, 1.0)


def test_answers_are_normalised():
    assert [normalised(each) for each in (" Yes.\n", "two", "A . ", "no..", "")] == ["yes", "two", "a", "no.", ""]


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("two horses", {"horse": 2}),
        ("a horse", {"horse": None}),
        ("3 horses", {"horse": 3}),
        ("Three grey wolves and an owl in front of a tree", {"grey wolf": 3, "owl": None}),
        ("a wolf and a grey wolf", {"wolf": None, "grey wolf": None}),
        ("four boxes, two hearts on fire and one sheep", {"box": 4, "heart on fire": 2, "sheep": 1}),
        ("two sheep", {"sheep": 2}),
        ("an owl to the left of two owls", {"owl": None}),
        ("two owls to the left of an owl", {"owl": 2}),
        ("two big owls", {"owl": None}),
        ("a horseback rider, owlish boxers", {}),
        ("a photo of green grass", {}),
        ("", {}),
        ("in front of a tree", {"tree": None}),
        ("a man's shoe", {"man's shoe": None}),
        ("five man's shoes", {"man's shoe": 5}),
    ],
)
def test_concepts_in_captions(caption: str, named: dict[str, int | None]):
    concepts = ["horse", "wolf", "grey wolf", "owl", "box", "heart on fire", "sheep", "tree", "man's shoe"]
    assert ConceptFinder(concepts).named(caption) == named


def test_a_name_that_is_another_ones_plural_stands_for_itself():
    assert ConceptFinder(["glass", "glasses"]).named("glasses and a glass") == {"glasses": None, "glass": None}


def test_caption_scores_by_hand():
    """Named: owl, axe; pear; nothing. Shown: two owls and an elk; three pears; an axe."""
    named = [{"owl": 2, "axe": 1}, {"pear": 2}, {}]
    found = CaptionScores.of(named, [("owl", "elk", "owl"), ("pear",) * 3, ("axe",)])
    assert (found.captions, found.precision.total, found.recall.total, found.numbers.total) == (3, 3, 4, 2)
    assert (found.precision.share, found.recall.share, found.numbers.share) == (2 / 3, 2 / 4, 1 / 2)
    assert found.f1 == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    nothing = CaptionScores.of([{}, {}], [("owl",), ("axe",)])
    assert (nothing.precision, nothing.recall.share, nothing.f1) == (Share(0, 0.0, 0.0), 0.0, 0.0)
