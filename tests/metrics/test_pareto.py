"""The Pareto front against its definition."""

from __future__ import annotations

import random

import pytest

from semhitok.metrics.pareto import pareto_front


def beaten(point: tuple[float, float], points: list[tuple[float, float]], signs: tuple[int, int]) -> bool:
    own = [sign * value for sign, value in zip(signs, point, strict=True)]
    for other in points:
        theirs = [sign * value for sign, value in zip(signs, other, strict=True)]
        if theirs != own and all(a >= b for a, b in zip(theirs, own, strict=True)):
            return True
    return False


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_the_front_is_what_nothing_beats(signs):
    numbers = random.Random(7)
    for size in (1, 2, 5, 30):
        for _ in range(20):
            points = [(numbers.randrange(6), numbers.randrange(6)) for _ in range(size)]
            front = pareto_front(points, higher_is_better=(signs[0] > 0, signs[1] > 0))
            assert sorted(front) == [i for i, point in enumerate(points) if not beaten(point, points, signs)]
            first = [signs[0] * points[index][0] for index in front]
            assert first == sorted(first, reverse=True)


def test_no_points_have_no_front():
    assert pareto_front([], higher_is_better=(True, True)) == []
