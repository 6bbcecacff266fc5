"""Questions: answers against the objects, and balance against what a blind guesser could use."""

from __future__ import annotations

from collections import Counter

import pytest

from semhitok.scenes.compose import Scene, compose
from semhitok.scenes.naming import content_words
from semhitok.scenes.questions import UNCERTAIN, Question, captions, questions
from semhitok.scenes.splits import Material


@pytest.fixture(scope="module")
def asked(everything: Material) -> list[tuple[Scene, list[Question]]]:
    scenes = [compose(9, index, 64, 64, everything) for index in range(300)]
    return list(zip(scenes, questions(scenes, 9), strict=True))


def _kind(asked: list[tuple[Scene, list[Question]]], kind: str) -> list[tuple[Scene, Question]]:
    return [(scene, question) for scene, found in asked for question in found if question.kind == kind]


def test_existence_answers_are_true(asked: list[tuple[Scene, list[Question]]]) -> None:
    existence = _kind(asked, "existence")
    assert len(existence) > 300
    for scene, question in existence:
        pasted = {item.concept for item in scene.objects}
        if question.answer == "yes":
            assert question.concept in pasted
        else:
            words = content_words(question.concept)
            visible = [*pasted, *scene.background_subjects]
            assert scene.objects
            assert not any(words & content_words(other) for other in visible)


def test_a_blind_guesser_is_right_half_of_the_time(asked: list[tuple[Scene, list[Question]]]) -> None:
    """Whatever concept and whatever way of drawing negatives: as many yes as no."""
    answers = Counter((q.concept, q.negatives, q.answer) for _, q in _kind(asked, "existence"))
    assert {way for _, way, _ in answers} == {"random", "popular", "adversarial"}
    for concept, way, _ in list(answers):
        assert answers[concept, way, "yes"] == answers[concept, way, "no"]


def test_adversarial_negatives_show_a_thing_of_the_same_category(asked: list[tuple[Scene, list[Question]]]) -> None:
    category_of = {item.concept: item.category for scene, _ in asked for item in scene.objects}
    for scene, question in _kind(asked, "existence"):
        if question.negatives == "adversarial" and question.answer == "no":
            assert category_of[question.concept] in {item.category for item in scene.objects}


def test_nothing_is_asked_that_backgrounds_may_show(asked: list[tuple[Scene, list[Question]]]) -> None:
    assert "tree" in UNCERTAIN
    for kind in ("existence", "count"):
        assert not any(question.concept == "tree" for _, question in _kind(asked, kind))
    assert any(item.concept == "tree" for scene, _ in asked for item in scene.objects)


def test_counts_are_true_and_balanced(asked: list[tuple[Scene, list[Question]]]) -> None:
    numbers = {"one": 1, "two": 2, "three": 3, "four": 4}
    counting = _kind(asked, "count")
    for scene, question in counting:
        assert numbers[question.answer] == sum(item.concept == question.concept for item in scene.objects)
    answers = Counter(question.answer for _, question in counting)
    assert answers["one"] == answers["two"] > 10


def test_positions_are_true_and_both_ways(asked: list[tuple[Scene, list[Question]]]) -> None:
    positions = _kind(asked, "position")
    for scene, question in positions:
        boxes = {item.concept: item.box for item in scene.objects}
        other = next(c for c in boxes if c != question.concept and question.question.endswith(f"the {c}?"))
        one, two = boxes[question.concept], boxes[other]
        axis = 0 if question.answer in ("left", "right") else 1
        before = one[axis] + one[axis + 2] < two[axis] + two[axis + 2]
        assert before == (question.answer in ("left", "above"))
    answers = Counter(question.answer for _, question in positions)
    assert min(answers[a] for a in ("left", "right", "above", "below")) > 0.15 * sum(answers.values())


def test_categories_are_those_of_the_only_concept(asked: list[tuple[Scene, list[Question]]]) -> None:
    for scene, question in _kind(asked, "category"):
        assert {item.category for item in scene.objects} == {question.answer}


def test_same_scenes_same_questions(everything: Material) -> None:
    scenes = [compose(2, index, 64, 64, everything) for index in range(30)]
    assert questions(scenes, 1) == questions(scenes, 1)
    assert questions(scenes, 1) != questions(scenes, 2)


def test_captions_say_what_is_there(asked: list[tuple[Scene, list[Question]]]) -> None:
    for scene, _ in asked:
        texts = captions(scene)
        assert texts[0] == scene.caption
        if scene.objects:
            assert scene.caption.startswith(texts[1])
            assert len(set(texts)) == len(texts)
