"""The Pareto front of points with two figures each."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]], *, higher_is_better: tuple[bool, bool]) -> list[int]:
    """Indices of the points that no other one beats: in one figure better and in the other at least as good.

    Equal points are all on the front.

    Args:
        points: two finite figures each.
        higher_is_better: for each of the two figures.

    Returns:
        Indices, from the best first figure to the worst.
    """
    signs = [1 if higher else -1 for higher in higher_is_better]
    ranked = [(signs[0] * x, signs[1] * y) for x, y in points]
    order = sorted(range(len(points)), key=lambda index: ranked[index], reverse=True)
    front: list[int] = []
    for index in order:
        if not front or ranked[index][1] > ranked[front[-1]][1] or ranked[index] == ranked[front[-1]]:
            front.append(index)
    return front
