"""Systems as points in two figures, larger being better in both, with the fronts of groups that may be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from semhitok.metrics.pareto import pareto_front
from semhitok.visualization.canvas import BACKGROUND, FAINT, INK, blank, font

WIDTH, HEIGHT = 1100, 720
LEFT, RIGHT, TOP, BOTTOM = 80, 150, 130, 70
GRID = "#e4e8ec"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#8a6fb0", "#56b4e9", "#e69f00")  # Okabe and Ito, colour-blind safe
LABEL = 15  # height in pixels of a label


@dataclass(frozen=True)
class ParetoPoint:
    """A system: its figures ``x`` and ``y``, and the bits per image, which only points of one front share."""

    name: str
    x: float
    y: float
    bits: int


def draw_pareto_plot(points: Sequence[ParetoPoint], *, title: str, subtitle: str, across: str, up: str) -> Image.Image:
    """Draw all points with their names, one colour and one front for each number of bits.

    Args:
        points: at least one.
        title, subtitle: at the head of the picture.
        across, up: titles of the axes.
    """
    picture, draw = blank(WIDTH, HEIGHT, title=title, subtitle=subtitle)
    low_x, high_x = _range([point.x for point in points])
    low_y, high_y = _range([point.y for point in points])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM),
        )

    for value in _ticks(low_x, high_x):
        draw.line([place(value, low_y), place(value, high_y)], GRID)
        draw.text((place(value, low_y)[0], HEIGHT - BOTTOM + 8), f"{value:g}", FAINT, font(14), anchor="ma")
    for value in _ticks(low_y, high_y):
        draw.line([place(low_x, value), place(high_x, value)], GRID)
        draw.text((LEFT - 10, place(low_x, value)[1]), f"{value:g}", FAINT, font(14), anchor="rm")
    draw.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 32), across, INK, font(15), anchor="ma")
    draw.text((20, TOP - 12), up, INK, font(15), anchor="ls")

    colours = {
        bits: COLOURS[index % len(COLOURS)] for index, bits in enumerate(sorted({point.bits for point in points}))
    }
    taken: list[tuple[float, float, float]] = []
    for number, (bits, colour) in enumerate(colours.items()):
        group = [point for point in points if point.bits == bits]
        chosen = pareto_front([(point.x, point.y) for point in group], higher_is_better=(True, True))
        front = [place(group[index].x, group[index].y) for index in chosen]
        if len(front) > 1:
            draw.line(front, colour, 2, joint="curve")
        for point in group:
            x, y = place(point.x, point.y)
            draw.ellipse([x - 5, y - 5, x + 5, y + 5], colour)
            row = _free_row(x + 9, y, font(14).getlength(point.name), taken)
            draw.text((x + 9, row), point.name, colour, font(14), anchor="lm", stroke_width=3, stroke_fill=BACKGROUND)
        draw.text((WIDTH - RIGHT + 14, TOP + 24 * number), f"{bits:,} bits", colour, font(15), anchor="lm")
    return picture


def _range(values: Sequence[float]) -> tuple[float, float]:
    spread = (max(values) - min(values)) or 1.0
    return min(values) - 0.1 * spread, max(values) + 0.1 * spread


def _ticks(low: float, high: float) -> list[float]:
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 8)
    first = math.ceil(low / step)
    return [round(index * step, 10) for index in range(first, math.floor(high / step) + 1)]


def _free_row(x: float, y: float, width: float, taken: list[tuple[float, float, float]]) -> float:
    """The height nearest to ``y`` at which a label of this width covers no earlier one; it is remembered as taken."""
    shifts = sorted((index * LABEL for index in range(-20, 21)), key=abs)
    for shift in shifts:
        row = y + shift
        if all(abs(row - other) >= LABEL or x + width < left or x > right for left, right, other in taken):
            taken.append((x, x + width, row))
            return row
    return y
