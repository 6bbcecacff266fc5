"""Answers without looking: hand-made questions, and captions against all sets of concepts there are."""

from __future__ import annotations

from itertools import combinations

import pytest

from semhitok.evaluation.understanding.answer_scores import CaptionScores
from semhitok.evaluation.understanding.blind import Prior, other_scenes
from semhitok.evaluation.understanding.scene_questions import AskedScene
from semhitok.scenes.questions import Question

SIDEWAYS, UPRIGHT = "Is the {} to the left or to the right of the {}?", "Is the {} above or below the {}?"


def count(concept: str, answer: str) -> Question:
    return Question("count", f"How many {concept}s are there?", answer, concept)


def existence(concept: str, answer: str) -> Question:
    return Question("existence", f"Is there a {concept} in the picture?", answer, concept, "random")


def position(form: str, answer: str) -> Question:
    return Question("position", form.format("dog", "cat"), answer, "dog")


def category(concept: str, answer: str) -> Question:
    return Question("category", "What kind of thing was put into the picture?", answer, concept)


def prior(*questions: Question) -> Prior:
    """One question in each scene."""
    return Prior(AskedScene(str(index), (), (question,)) for index, question in enumerate(questions))


KNOWN = prior(
    *(count("dog", "two") for _ in range(3)),
    *(count("cat", "one") for _ in range(2)),
    *(count("cat", "four") for _ in range(1)),
    existence("dog", "yes"),
    existence("dog", "no"),
    existence("cat", "yes"),
    existence("cow", "yes"),
    existence("cow", "Yes."),
    *(position(SIDEWAYS, answer) for answer in ("left", "right", "right")),
    *(position(UPRIGHT, answer) for answer in ("above", "above", "below")),
    *(category(concept, answer) for concept, answer in (("dog", "animal"), ("cat", "animal"), ("car", "vehicle"))),
)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (count("dog", "one"), "two"),
        (count("cat", "two"), "one"),
        (count("elk", "one"), "two"),  # of the kind: three times two, two times one, one four
        (existence("dog", "yes"), "no"),  # as often yes as no
        (existence("cow", "no"), "yes"),
        (existence("elk", "no"), "yes"),
        (position(SIDEWAYS, "left"), "right"),
        (position(UPRIGHT, "left"), "above"),
        (category("car", "vehicle"), "animal"),  # the question does not say that there is a car
    ],
)
def test_the_most_frequent_answer(question: Question, answer: str):
    assert KNOWN.answer(question) == answer


def test_chance_is_one_of_the_answers_there_are():
    assert KNOWN.chance([existence("dog", "no")]) == 1 / 2
    assert KNOWN.chance([count("dog", "one")]) == 1 / 3, "of the kind: two, one, four"
    assert KNOWN.chance([position(SIDEWAYS, "left"), category("dog", "animal")]) == 1 / 2
    assert KNOWN.chance([count("dog", "one"), position(SIDEWAYS, "left")]) == (1 / 3 + 1 / 2) / 2


def test_what_training_does_not_know():
    with pytest.raises(ValueError, match=r"no questions like 'Is the dog above or below the cat\?' \(position\)"):
        prior(position(SIDEWAYS, "left")).answer(position(UPRIGHT, "above"))
    with pytest.raises(ValueError, match=r"no questions like .* \(count\)"):
        prior(existence("dog", "no")).chance([count("dog", "one")])
    with pytest.raises(ValueError, match="the training scenes have no questions"):
        Prior([AskedScene("a", ("dog",), ())])


@pytest.mark.parametrize(
    "shown",
    [
        [("dog", "dog", "cat"), ("dog",), ("dog", "cow"), ("cat", "elk"), ()],
        [("dog",), ("cat",), ("cow",), ("elk",)],
        [("dog", "cat", "cow", "elk"), ("dog", "cat", "cow")],
    ],
)
def test_the_same_caption_for_all_cannot_be_better(shown: list[tuple[str, ...]]):
    asked = [AskedScene(str(index), concepts, (count("dog", "one"),)) for index, concepts in enumerate(shown)]
    shown = [concepts for concepts in shown if concepts]

    def f1(named: tuple[str, ...] | frozenset[str]) -> float:
        return CaptionScores.of([dict.fromkeys(named)] * len(shown), shown).f1

    concepts = ("dog", "cat", "cow", "elk")
    every = [some for size in range(1, 5) for some in combinations(concepts, size)]
    assert f1(Prior(asked).caption_concepts()) == pytest.approx(max(map(f1, every)))
    assert Prior(asked).concepts == set(concepts)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 50])
def test_every_scene_gets_another_ones_image(count: int):
    others = other_scenes(count)
    assert sorted(others) == list(range(count))
    assert all(other != index for index, other in enumerate(others))


def test_a_single_scene_has_no_other():
    with pytest.raises(ValueError, match="at least two scenes with objects or questions, got 1"):
        other_scenes(1)
