"""The SVG of two figures: where points are, what is named, and that any names and numbers are taken."""

from __future__ import annotations

import math
import random
from xml.etree import ElementTree

import pytest

from semhitok.visualization.scatter_plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Point, scatter_plot


def drawn(points: list[Point], front: list[int], *, logarithmic: bool = False) -> ElementTree.Element:
    return ElementTree.fromstring(scatter_plot(points, front, Axis("bits", logarithmic), Axis("PSNR, dB")))


def places(svg: ElementTree.Element) -> dict[str, tuple[float, float]]:
    return {
        circle.find("title").text.split(":")[0]: (float(circle.get("cx")), float(circle.get("cy")))
        for circle in svg.iter("circle")
    }


@pytest.mark.parametrize("logarithmic", [False, True])
def test_places_follow_the_values(logarithmic):
    points = [Point("a", 100, 10, "x"), Point("b", 1000, 20, "x"), Point("c", 10000, 30, "x")]
    found = places(drawn(points, [0], logarithmic=logarithmic))
    across = [found[name][0] for name in "abc"]
    up = [found[name][1] for name in "abc"]
    share = (across[1] - across[0]) / (across[2] - across[0])
    assert share == pytest.approx(0.5 if logarithmic else 900 / 9900, abs=0.01)
    assert up[0] - up[1] == pytest.approx(up[1] - up[2], abs=0.11)
    assert LEFT < across[0] < across[2] < WIDTH - RIGHT
    assert TOP < up[2] < up[0] < HEIGHT - BOTTOM


def test_the_front_is_joined_and_named_and_names_do_not_cover_each_other():
    points = [Point("left & <first>", 1, 1, "n"), Point("right", 2, 2, "n"), Point("beside", 2.001, 2.001, "n")]
    svg = drawn(points, [0, 1])
    line = svg.find("polyline").get("points").split()
    assert line == [",".join(f"{value:.1f}" for value in places(svg)[name]) for name in ("left & <first>", "right")]
    texts = [text.text for text in svg.iter("text")]
    assert "left & <first>" in texts
    assert "beside" not in texts
    assert svg.get("role") == "img"
    assert "3 experiments, 2 on the Pareto front" in svg.get("aria-label")


def test_any_numbers_have_a_picture_with_marks():
    numbers = random.Random(3)
    for trial in range(60):
        size, scale = numbers.randrange(1, 9), 10.0 ** numbers.randrange(-6, 9)
        shift = numbers.choice([0.0, 5 * scale])
        points = [
            Point(f"p{i}", shift + numbers.random() * scale + 1e-9, numbers.random() * scale, "") for i in range(size)
        ]
        svg = drawn(points, list(range(size)), logarithmic=trial % 2 == 0)
        assert all(math.isfinite(value) for place in places(svg).values() for value in place)
        assert len([text for text in svg.iter("text") if text.get("text-anchor") == "middle"]) >= 3  # titles, and marks
