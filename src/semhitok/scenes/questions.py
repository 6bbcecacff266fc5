"""Question-answer pairs of scenes, balanced over a block of scenes so that guessing without the image does not pay.

Existence questions come in pairs: "yes" where a concept was pasted, "no" in another scene without it. Each concept has
equally many of both, so blind guessing is right half of the time, even with knowledge of frequencies. As in POPE (Li et
al. 2023, "Evaluating Object Hallucination in Large Vision-Language Models"), the "no" side is sampled in three ways:
``random``, any scene; ``popular``, the concept is among the most frequent; ``adversarial``, a scene with another thing
of the same category.

Questions only cover what is certain from the composition. A background may show unlabelled things, so words of scenery
(``UNCERTAIN``) are never denied and hence, for balance, never asked about; and no bare photograph answers "no".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from semhitok.scenes.compose import NUMBERS, Scene
from semhitok.scenes.naming import content_words, group, plural, with_article

Kind = Literal["existence", "count", "position", "category"]
Negative = Literal["random", "popular", "adversarial"]

# Things that backgrounds may show without a label.
UNCERTAIN = frozenset(
    """
    tree cloud person people man woman boy girl building house home door window roof wall stone rock grass flower
    plant leaf branch wood mountain hill sky sun water sea wave lake river road path bridge boat tower castle
    monument statue fence bird fish insect light lamp shadow beach field garden street city church temple cathedral
    column arch stair flag sign crowd eye hand face head fruit animal
    """.split()  # noqa: SIM905 -- a list of words reads better
)
POPULAR_SHARE = 0.25  # the most frequent concepts of a block


@dataclass(frozen=True)
class Question:
    """One question about one scene.

    Attributes:
        kind: kind of the question.
        question: a sentence.
        answer: one word or short phrase, lower case.
        concept: the concept asked about; the first of two for positions.
        negatives: for existence questions, how the "no" side of the pair was sampled, on both sides; otherwise None.
    """

    kind: Kind
    question: str
    answer: str
    concept: str
    negatives: Negative | None = None


def questions(scenes: Sequence[Scene], seed: int) -> list[list[Question]]:
    """Questions for each scene of a block (a shard): a pure function of the scenes and the seed."""
    random = np.random.default_rng((seed, len(scenes), 0x9A))
    found: list[list[Question]] = [[] for _ in scenes]
    _existence(scenes, random, found)
    _counting(scenes, random, found)
    for index, scene in enumerate(scenes):
        found[index] += position_questions(scene, random)
        found[index] += category_questions(scene)
    return found


def _concepts(scene: Scene) -> Counter[str]:
    return Counter(item.concept for item in scene.objects)


def can_be_denied(concept: str, scene: Scene) -> bool:
    """Whether the scene certainly does not show the concept: it shares no word with objects or background."""
    if not scene.objects:
        return False
    words = content_words(concept)
    shown = [item.concept for item in scene.objects] + list(scene.background_subjects)
    return not any(words & content_words(other) for other in shown)


def _existence(scenes: Sequence[Scene], random: np.random.Generator, found: list[list[Question]]) -> None:
    frequency: Counter[str] = Counter(concept for scene in scenes for concept in _concepts(scene))
    popular = {concept for concept, _ in frequency.most_common(int(POPULAR_SHARE * len(frequency)))}
    by_category: dict[str, list[int]] = {}
    for index, scene in enumerate(scenes):
        for category in {item.category for item in scene.objects}:
            by_category.setdefault(category, []).append(index)
    ways: tuple[Negative, ...] = ("random", "popular", "adversarial")
    turn = 0
    for index, scene in enumerate(scenes):
        categories = {item.concept: item.category for item in scene.objects}
        for concept in sorted(categories):
            if never_denied(concept):
                continue
            way = ways[turn % 3]
            if way == "popular" and concept not in popular:
                way = "random"
            pool = by_category[categories[concept]] if way == "adversarial" else range(len(scenes))
            other = _scene_without(concept, scenes, pool, random)
            if other is None:
                continue
            turn += 1
            text = existence_text(concept)
            found[index].append(Question("existence", text, "yes", concept, way))
            found[other].append(Question("existence", text, "no", concept, way))


def _scene_without(
    concept: str, scenes: Sequence[Scene], pool: Sequence[int], random: np.random.Generator
) -> int | None:
    for _ in range(12):
        index = pool[int(random.integers(len(pool)))]
        if can_be_denied(concept, scenes[index]):
            return index
    return None


def _counting(scenes: Sequence[Scene], random: np.random.Generator, found: list[list[Question]]) -> None:
    """All questions whose answer is two or more, and as many with the answer one as with the answer two."""
    asked: dict[int, list[tuple[int, str]]] = {number: [] for number in NUMBERS}
    for index, scene in enumerate(scenes):
        for concept, number in sorted(_concepts(scene).items()):
            words = content_words(concept)
            seen_behind = any(words & content_words(subject) for subject in scene.background_subjects)
            other_of_kind = any(words & content_words(c) for c in _concepts(scene) if c != concept)
            if not words & UNCERTAIN and not seen_behind and not other_of_kind:
                asked[number].append((index, concept))
    singles = random.permutation(len(asked[1]))[: len(asked[2])]
    asked[1] = [asked[1][position] for position in sorted(singles)]
    for number, items in asked.items():
        for index, concept in items:
            found[index].append(Question("count", count_text(concept), NUMBERS[number], concept))


def position_questions(scene: Scene, random: np.random.Generator) -> list[Question]:
    """One question per pair of single things, about either with equal chance, so that both answers are equally likely."""
    counts, found = _concepts(scene), []
    for first, relation, second in scene.relations:
        one, other = scene.objects[first].concept, scene.objects[second].concept
        if relation in ("left of", "above") and counts[one] == counts[other] == 1:
            sideways = relation == "left of"
            answers = ("left", "right") if sideways else ("above", "below")
            if random.random() < 0.5:
                one, other, answers = other, one, answers[::-1]
            place = "to the left or to the right of" if sideways else "above or below"
            text = f"Is the {one} {place} the {other}?"
            found.append(Question("position", text, answers[0], one))
    return found


def category_questions(scene: Scene) -> list[Question]:
    """One question about the category, if the scene shows a single concept."""
    if len(_concepts(scene)) != 1:
        return []
    item = scene.objects[0]
    return [Question("category", "What kind of thing was put into the picture?", item.category, item.concept)]


def existence_text(concept: str) -> str:
    """'Is there a dog in the picture?'"""
    return f"Is there {with_article(concept)} in the picture?"


def count_text(concept: str) -> str:
    """'How many dogs are there?'"""
    return f"How many {plural(concept)} are there?"


def never_denied(concept: str) -> bool:
    """Whether a photograph may show the concept without a label, so that nobody asks whether it is there."""
    return bool(content_words(concept) & UNCERTAIN) or group(concept) in UNCERTAIN


def captions(scene: Scene) -> list[str]:
    """The scene's caption, its objects alone, and relations of pairs of single things ('a dog to the left of a car')."""
    if not scene.objects:
        return [scene.caption]
    texts = [scene.caption, scene.caption.split(" in front of ")[0]]
    counts = _concepts(scene)
    words = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}
    for first, relation, second in scene.relations:
        one, other = scene.objects[first].concept, scene.objects[second].concept
        if counts[one] == counts[other] == 1:
            texts.append(f"{with_article(one)} {words[relation]} {with_article(other)}")
    return texts
