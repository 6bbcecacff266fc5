"""Two figures of many models as an SVG: points, their names, and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 20, 56
LABEL_WIDTH, LABEL_HEIGHT = 6.6, 15  # of a letter and a line in pixels, to keep labels apart


@dataclass(frozen=True)
class Axis:
    """One axis: its title, and whether it is logarithmic, which takes values above 0."""

    title: str
    logarithmic: bool = False


@dataclass(frozen=True)
class Point:
    """One point; ``note`` is what a pointer over it shows."""

    name: str
    x: float
    y: float
    note: str


def scatter_plot(points: Sequence[Point], front: Sequence[int], across: Axis, up: Axis) -> str:
    """An ``<svg>`` that scales with its place and takes its colours from ``currentColor`` and ``--accent``.

    Args:
        points: at least one, with finite figures.
        front: indices of the points on the front, which are joined by a line and named where there is room.
        across, up: the axes.
    """
    horizontal = _Scale([point.x for point in points], across.logarithmic, LEFT, WIDTH - RIGHT)
    vertical = _Scale([point.y for point in points], up.logarithmic, HEIGHT - BOTTOM, TOP)
    places = [(horizontal.place(point.x), vertical.place(point.y)) for point in points]
    on_front = set(front)
    order = sorted(range(len(points)), key=lambda index: index in on_front)  # the front on top
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (places[index] for index in front))
    label = f"{up.title} against {across.title}: {len(points)} experiments, {len(on_front)} on the Pareto front"
    return "\n".join(
        [
            f'<svg class="scatter" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
            *_axes(horizontal, vertical, across, up),
            f'<polyline points="{line}" fill="none" stroke="var(--accent)" stroke-width="1.5" stroke-dasharray="4 4"/>',
            *(_point(points[index], *places[index], index in on_front) for index in order),
            *_names(points, places, front),
            "</svg>",
        ]
    )


class _Scale:
    """Maps values to pixels, with round marks."""

    def __init__(self, values: Sequence[float], logarithmic: bool, begin: float, end: float) -> None:
        self.logarithmic = logarithmic and min(values) > 0
        low, high = (self._unit(value) for value in (min(values), max(values)))
        margin = 0.08 * (high - low) or (abs(high) * 0.05 or 1.0)
        self.low, self.high, self.begin, self.end = low - margin, high + margin, begin, end

    def place(self, value: float) -> float:
        share = (self._unit(value) - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    def marks(self) -> list[float]:
        low, high = (math.exp(end) if self.logarithmic else end for end in (self.low, self.high))
        if self.logarithmic and high > 10 * low:
            powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            digits = (1,) if high > 1000 * low else (1, 2, 5)
            marks = [digit * 10.0**power for power in powers for digit in digits]
            return [mark for mark in marks if low <= mark <= high]
        step = 10.0 ** math.floor(math.log10((high - low) / 3))
        step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 7)
        return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]

    def _unit(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value


def _axes(horizontal: _Scale, vertical: _Scale, across: Axis, up: Axis) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    lines = []
    for mark in vertical.marks():
        y = vertical.place(mark)
        lines.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" opacity="0.12"/>')
        lines.append(_text(LEFT - 8, y + 4, f"{mark:,.6g}", anchor="end"))
    for mark in horizontal.marks():
        x = horizontal.place(mark)
        lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" stroke="currentColor" opacity="0.12"/>')
        lines.append(_text(x, bottom + 18, f"{mark:,.6g}", anchor="middle"))
    lines.append(_text((LEFT + right) / 2, HEIGHT - 12, across.title, anchor="middle"))
    middle = (TOP + bottom) / 2
    lines.append(_text(16, middle, up.title, anchor="middle", extra=f' transform="rotate(-90 16 {middle:.0f})"'))
    return lines


def _point(point: Point, x: float, y: float, on_front: bool) -> str:
    look = 'r="6" fill="var(--accent)"' if on_front else 'r="4.5" fill="currentColor" opacity="0.45"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" {look}><title>{escape(f"{point.name}: {point.note}")}</title></circle>'


def _names(points: Sequence[Point], places: Sequence[tuple[float, float]], front: Sequence[int]) -> list[str]:
    """Names of the front's points, each where it covers no other name and, if possible, no point; else none."""
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    drawn = []
    for index in front:
        x, y = places[index]
        width = LABEL_WIDTH * len(points[index].name)
        for left, base, anchor in (
            *((x - 10 - width, y + shift, "end") for shift in (-6, 5, 18)),
            *((x + 10, y + shift, "start") for shift in (5, 18, -6)),
        ):
            box = (left, base - LABEL_HEIGHT + 4, left + width, base + 3)
            inside = box[0] >= LEFT and box[2] <= WIDTH - RIGHT and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                drawn.append(_text(x + (10 if anchor == "start" else -10), base, points[index].name, anchor=anchor))
                break
    return drawn


def _overlap(one: tuple[float, ...], two: tuple[float, ...]) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def _text(x: float, y: float, text: str, *, anchor: str, extra: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" fill="currentColor" class="mark"'
    return f"<text {place}{extra}>{escape(text)}</text>"
