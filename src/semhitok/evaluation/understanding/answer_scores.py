"""What answers to questions about scenes, and captions of them, are worth.

An answer is right if it is the expected one, letter for letter, after ``normalised``. Existence has POPE's metrics (Li et al.
2023, "Evaluating Object Hallucination in Large Vision-Language Models") with "yes" as the positive answer. A caption is
judged by the concepts it names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from semhitok.evaluation.understanding.scene_questions import GROUPS, groups_of
from semhitok.scenes.naming import plural
from semhitok.scenes.questions import Question

BACKGROUND = " in front of "
"""What follows in a scene's caption tells of the photograph, where nobody labelled the things."""

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

Named = Mapping[str, int | None]
"""Concepts that a caption names, with the number that it gives, None without one."""


def normalised(answer: str) -> str:
    """Lower case, without a final full stop and space around."""
    return answer.strip().lower().removesuffix(".").rstrip()


@dataclass(frozen=True)
class Share:
    """A share of things counted.

    Attributes:
        total: how many things; 0 makes the share 0.
        share: in [0,1].
        standard_error: of the share, binomial: sqrt(share (1 - share) / total).
    """

    total: int
    share: float
    standard_error: float

    @classmethod
    def of(cls, chosen: int, total: int) -> Share:
        """``chosen`` of ``total``."""
        share = chosen / total if total else 0.0
        return cls(total, share, math.sqrt(share * (1 - share) / total) if total else 0.0)


@dataclass(frozen=True)
class ExistenceScores:
    """POPE's metrics; "yes" is the positive answer.

    Attributes:
        accuracy: over all questions; an answer that is neither yes nor no is wrong.
        precision: share of right ones among the answers "yes"; 0 without any.
        recall: share of the things there that were answered with "yes".
        f1: harmonic mean of the two.
        yes: share of the answers "yes", 0.5 for a model without bias on balanced questions.
        other: how many answers were neither yes nor no.
    """

    accuracy: Share
    precision: float
    recall: float
    f1: float
    yes: float
    other: int

    @classmethod
    def of(cls, expected: Sequence[str], answers: Sequence[str]) -> ExistenceScores:
        """From answers, expected and given, as ``normalised`` leaves them."""
        pairs = list(zip(expected, answers, strict=True))
        true_yes, said, there = pairs.count(("yes", "yes")), answers.count("yes"), expected.count("yes")
        return cls(
            accuracy=Share.of(true_yes + pairs.count(("no", "no")), len(pairs)),
            precision=true_yes / said if said else 0.0,
            recall=true_yes / there if there else 0.0,
            f1=_f1(true_yes, said, there),
            yes=said / len(pairs) if pairs else 0.0,
            other=len(pairs) - said - answers.count("no"),
        )


def accuracies(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, Share]:
    """Exact matches by group, in the order of ``GROUPS``; groups without questions are left out."""
    right: dict[str, list[bool]] = {}
    for question, answer in zip(questions, answers, strict=True):
        for group in groups_of(question):
            right.setdefault(group, []).append(normalised(answer) == normalised(question.answer))
    return {group: Share.of(sum(right[group]), len(right[group])) for group in GROUPS if group in right}


def existence_scores(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, ExistenceScores]:
    """POPE's metrics over all questions about existence, and by how the negatives were drawn."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for question, answer in zip(questions, answers, strict=True):
        for group in groups_of(question) if question.kind == "existence" else ():
            expected, given = found.setdefault(group, ([], []))
            expected.append(normalised(question.answer))
            given.append(normalised(answer))
    return {group: ExistenceScores.of(*found[group]) for group in GROUPS if group in found}


@dataclass(frozen=True)
class CaptionScores:
    """Concepts named in captions against those shown; each counts once per image, summed over all images.

    Attributes:
        captions: how many.
        precision: of the concepts named, those that are shown.
        recall: of the concepts shown, those that are named.
        f1: harmonic mean of the two.
        numbers: of the concepts rightly named with a number ("two horses"), those shown that many times.
    """

    captions: int
    precision: Share
    recall: Share
    f1: float
    numbers: Share

    @classmethod
    def of(cls, named: Sequence[Named], shown: Sequence[Sequence[str]]) -> CaptionScores:
        """From what the caption of each image names, and the concepts of the image's objects."""
        right = said = there = counted = exact = 0
        for names, concepts in zip(named, shown, strict=True):
            said, there = said + len(names), there + len(set(concepts))
            found = names.keys() & set(concepts)
            numbers = [(names[each], concepts.count(each)) for each in found if names[each] is not None]
            right, counted = right + len(found), counted + len(numbers)
            exact += sum(number == count for number, count in numbers)
        return cls(
            captions=len(named),
            precision=Share.of(right, said),
            recall=Share.of(right, there),
            f1=_f1(right, said, there),
            numbers=Share.of(exact, counted),
        )


class ConceptFinder:
    """Finds the concepts that a caption names, in the singular or the plural; the longest name goes first.

    "two grey wolves and an owl in front of a tree" -> {"grey wolf": 2, "owl": None}.

    Args:
        concepts: all that count.
    """

    def __init__(self, concepts: Iterable[str]) -> None:
        names = sorted(set(concepts))
        # A name that is also another's plural stands for itself.
        self._concepts = {_words(plural(name)): name for name in names} | {_words(name): name for name in names}
        self._lengths = sorted({len(words) for words in self._concepts}, reverse=True)

    def named(self, caption: str) -> dict[str, int | None]:
        """Each concept with the number right before it, None without one; of one named twice the first counts."""
        words, found, place = _words(caption.split(BACKGROUND)[0]), {}, 0
        while place < len(words):
            spans = (words[place : place + length] for length in self._lengths)
            span = next((span for span in spans if span in self._concepts), None)
            if span is None:
                place += 1
            else:
                found.setdefault(self._concepts[span], _number(words[place - 1]) if place else None)
                place += len(span)
        return found


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z0-9'-]+", text.lower()))


def _number(word: str) -> int | None:
    if word.isdecimal():
        return int(word)
    return NUMBERS.index(word) + 1 if word in NUMBERS else None


def _f1(right: int, said: int, there: int) -> float:
    return 2 * right / (said + there) if said + there else 0.0
