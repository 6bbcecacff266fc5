"""Scores of answers to questions about scenes and of captions.

An answer is right if it equals the expected one after ``normalised``. Existence questions have POPE's metrics (Li et al.
2023, "Evaluating Object Hallucination in Large Vision-Language Models") with "yes" as the positive answer. A caption is
scored by the concepts that it names.
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
"""The rest of a scene's caption describes the photograph, whose objects are not labelled."""

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

Named = Mapping[str, int | None]
"""Concepts that a caption names, with the number that it states, or None."""


def normalised(answer: str) -> str:
    """The answer in lower case, without surrounding whitespace and final full stop."""
    return answer.strip().lower().removesuffix(".").rstrip()


@dataclass(frozen=True)
class Share:
    """A share with its standard error.

    Attributes:
        total: size of the whole; the share of 0 is 0.
        share: in [0,1].
        standard_error: binomial, sqrt(share (1 - share) / total).
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
        precision: share of the answers "yes" that are right; 0 without any.
        recall: share of the questions with the answer "yes" that were answered so.
        f1: harmonic mean of precision and recall.
        yes: share of the answers "yes", 0.5 for an unbiased model on balanced questions.
        other: number of answers that are neither yes nor no.
    """

    accuracy: Share
    precision: float
    recall: float
    f1: float
    yes: float
    other: int

    @classmethod
    def of(cls, expected: Sequence[str], answers: Sequence[str]) -> ExistenceScores:
        """Scores of ``normalised`` answers, expected and given."""
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
    """POPE's metrics over all questions about existence, and by how the negatives were sampled."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for question, answer in zip(questions, answers, strict=True):
        for group in groups_of(question) if question.kind == "existence" else ():
            expected, given = found.setdefault(group, ([], []))
            expected.append(normalised(question.answer))
            given.append(normalised(answer))
    return {group: ExistenceScores.of(*found[group]) for group in GROUPS if group in found}


@dataclass(frozen=True)
class CaptionScores:
    """Concepts named in captions compared with those shown; each counts once per image, summed over all images.

    Attributes:
        captions: number of captions.
        precision: share of the named concepts that are shown.
        recall: share of the shown concepts that are named.
        f1: harmonic mean of precision and recall.
        numbers: share of the concepts correctly named with a number ("two horses") that are shown that many times.
    """

    captions: int
    precision: Share
    recall: Share
    f1: float
    numbers: Share

    @classmethod
    def of(cls, named: Sequence[Named], shown: Sequence[Sequence[str]]) -> CaptionScores:
        """Scores from the concepts that each caption names and those of the image's objects."""
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
    """Finds the concepts that a caption names, in the singular or the plural; longer names take precedence.

    "two grey wolves and an owl in front of a tree" -> {"grey wolf": 2, "owl": None}.

    Args:
        concepts: all concepts to look for.
    """

    def __init__(self, concepts: Iterable[str]) -> None:
        names = sorted(set(concepts))
        # A name that is also the plural of another one means itself.
        self._concepts = {_words(plural(name)): name for name in names} | {_words(name): name for name in names}
        self._lengths = sorted({len(words) for words in self._concepts}, reverse=True)

    def named(self, caption: str) -> dict[str, int | None]:
        """Each concept with the number right before it, or None; if a concept is named twice, the first one counts."""
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
