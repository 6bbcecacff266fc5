"""The plot draws any number of points; the front itself: tests/metrics/test_pareto.py."""

from __future__ import annotations

from semhitok.visualization.pareto_plot import ParetoPoint, draw_pareto_plot


def test_it_is_drawn_for_one_point_and_for_crowded_ones():
    one = draw_pareto_plot([ParetoPoint("a", 1, 2, 768)], title="t", subtitle="s", across="x", up="y")
    many = [ParetoPoint(f"system {i}", 50 + i % 2, 20.0, 768 + 1280 * (i % 2)) for i in range(25)]
    picture = draw_pareto_plot(many, title="t", subtitle="s", across="x", up="y")
    assert picture.size == one.size
    assert picture.tobytes() != one.tobytes()
