"""How reliable a judge is: its detections in images with ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from semhitok.evaluation.text_to_image.judge import Found, Judge
from semhitok.scenes.truth import Placed, SceneTruth, relations_of
from semhitok.visualization.markdown import percent


@dataclass(frozen=True)
class JudgeScores:
    """Shares in [0,1], None if there was nothing to count.

    Attributes:
        recall: share of the shown concepts that were found.
        precision: share of the found concepts that are shown.
        count: share of the shown concepts that were found exactly as often as they are shown.
        place: share of the true relations between single objects, both found, that hold between the positions found.
        images: number of images.
    """

    recall: float | None
    precision: float | None
    count: float | None
    place: float | None
    images: int

    def sentence(self) -> str:
        """All scores in one line."""
        shares = {"recall": self.recall, "precision": self.precision, "count": self.count, "place": self.place}
        said = (f"{name} {'none' if share is None else percent(share)}" for name, share in shares.items())
        return f"{', '.join(said)} ({self.images:,} images)"


def judge_recall(judge: Judge, images_BCHW: Tensor, scenes: Sequence[SceneTruth]) -> JudgeScores:
    """Run the judge on images (B,3,H,W) in [-1,1], and compare its detections with the ground truth."""
    return compare(judge.find(images_BCHW), scenes)


def compare(found: Sequence[Sequence[Found]], scenes: Sequence[SceneTruth]) -> JudgeScores:
    """Compare the detections in each image with its ground truth."""
    shown = said = right = exact = related = holding = 0
    for things, truth in zip(found, scenes, strict=True):
        numbers, true_numbers = count_of(things), Counter(thing.concept for thing in truth.objects)
        shown, said = shown + len(true_numbers), said + len(numbers)
        right += len(true_numbers.keys() & numbers.keys())
        exact += sum(numbers[concept] == number for concept, number in true_numbers.items())
        for one, relation, other in truth.relations:
            first, second = truth.objects[one].concept, truth.objects[other].concept
            if true_numbers[first] == true_numbers[second] == 1 and first in numbers and second in numbers:
                related += 1
                holding += holds(things, first, relation, second)
    return JudgeScores(
        recall=_share(right, shown),
        precision=_share(right, said),
        count=_share(exact, shown),
        place=_share(holding, related),
        images=len(scenes),
    )


def count_of(things: Sequence[Found]) -> Counter[str]:
    """Number of detections of each concept."""
    return Counter(thing.concept for thing in things)


def holds(things: Sequence[Found], first: str, relation: str, second: str) -> bool:
    """Whether both concepts were found and the relation holds between the most certain detection of each.

    The rule is that of the captions: centres are more than 12 % of the side apart along the axis, and further than along
    the other one.
    """
    best = [next((thing for thing in things if thing.concept == concept), None) for concept in (first, second)]
    if None in best:
        return False
    placed = [Placed(thing.concept, thing.x, thing.y) for thing in best if thing is not None]
    return (0, relation, 1) in relations_of(placed)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
