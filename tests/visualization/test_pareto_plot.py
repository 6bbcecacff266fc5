"""The Pareto front by brute force; the plot draws any number of points."""

from __future__ import annotations

import random

from semhitok.visualization.pareto_plot import ParetoPoint, draw_pareto_plot, pareto_front


def test_the_front_is_what_nothing_dominates():
    generator = random.Random(0)
    points = [ParetoPoint(str(i), generator.randint(0, 9), generator.randint(0, 9), 768) for i in range(40)]
    front = pareto_front(points)
    undominated = {
        (point.x, point.y)
        for point in points
        if not any(o.x >= point.x and o.y >= point.y and (o.x, o.y) != (point.x, point.y) for o in points)
    }
    assert {(point.x, point.y) for point in front} == undominated
    assert [point.x for point in front] == sorted(point.x for point in front)


def test_it_is_drawn_for_one_point_and_for_crowded_ones():
    one = draw_pareto_plot([ParetoPoint("a", 1, 2, 768)], title="t", subtitle="s", across="x", up="y")
    many = [ParetoPoint(f"system {i}", 50 + i % 2, 20.0, 768 + 1280 * (i % 2)) for i in range(25)]
    picture = draw_pareto_plot(many, title="t", subtitle="s", across="x", up="y")
    assert picture.size == one.size
    assert picture.tobytes() != one.tobytes()
