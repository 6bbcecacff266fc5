"""Blind baselines: the most frequent answer to the training questions, and answers about another scene's image.

What counts is how far a model exceeds them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from semhitok.evaluation.understanding.answer_scores import normalised
from semhitok.evaluation.understanding.scene_questions import AskedScene, axis_of
from semhitok.scenes.questions import Question


class Prior:
    """Answers from the frequencies in training scenes alone.

    The answer is the most frequent one among training questions that share a cue. Existence and count: the same concept,
    or the kind for a concept never asked about. Position: left or right, or above or below. Category: the kind, as these
    questions name no concept. Ties are broken alphabetically.

    Args:
        scenes: the training scenes.

    Raises:
        ValueError: none of them has a question.
    """

    def __init__(self, scenes: Iterable[AskedScene]) -> None:
        self._answers: dict[tuple[str, ...], Counter[str]] = {}
        self._frequency: Counter[str] = Counter()
        self._shown = 0
        for scene in scenes:
            self._frequency.update(set(scene.concepts))
            self._shown += bool(scene.concepts)
            for question in scene.questions:
                for cue in _cues(question):
                    self._answers.setdefault(cue, Counter())[normalised(question.answer)] += 1
        if not self._answers:
            raise ValueError("the training scenes have no questions, from which the blind prior is learned")

    @property
    def concepts(self) -> frozenset[str]:
        """All concepts that the training scenes show."""
        return frozenset(self._frequency)

    def answer(self, question: Question) -> str:
        """The most frequent answer, without looking.

        Raises:
            ValueError: no training scene has a question of this kind.
        """
        known = self._known(question, _cues(question))
        return min(known, key=lambda answer: (-known[answer], answer))

    def chance(self, questions: Sequence[Question]) -> float:
        """Expected accuracy of an answer sampled uniformly from those that training has for such questions.

        Raises:
            ValueError: as ``answer``.
        """
        return sum(1 / len(self._known(each, _cues(each)[-1:])) for each in questions) / len(questions)

    def caption_concepts(self) -> frozenset[str]:
        """Concepts to name in every caption: the most frequent ones, as many as maximise F1 in training."""
        best, chosen, right = 0.0, 0, 0
        ranked = sorted(self._frequency, key=lambda concept: (-self._frequency[concept], concept))
        for count, concept in enumerate(ranked, start=1):
            right += self._frequency[concept]
            f1 = 2 * right / (count * self._shown + self._frequency.total())
            if f1 > best:
                best, chosen = f1, count
        return frozenset(ranked[:chosen])

    def _known(self, question: Question, cues: Sequence[tuple[str, ...]]) -> Counter[str]:
        for cue in cues:
            if cue in self._answers:
                return self._answers[cue]
        raise ValueError(f"the training scenes have no questions like {question.question!r} ({question.kind})")


def _cues(question: Question) -> list[tuple[str, ...]]:
    """What a question reveals without its image, the most specific cue first."""
    match question.kind:
        case "existence" | "count":
            return [(question.kind, question.concept), (question.kind,)]
        case "position":
            return [(question.kind, axis_of(question))]
        case "category":
            return [(question.kind,)]


def other_scenes(count: int) -> list[int]:
    """A permutation that assigns each scene another one: the one half of the scenes further on.

    Raises:
        ValueError: there are fewer than two.
    """
    if count < 2:
        raise ValueError(f"the image of another scene needs at least two scenes with objects or questions, got {count}")
    return [(index + count // 2) % count for index in range(count)]
