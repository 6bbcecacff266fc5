"""Small plots side by side, both axes logarithmic, drawn with Pillow and its built-in font."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, COLUMNS = 430, 330, 3  # of one panel; panels in a row
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 52, 52
HEADER, LEGEND = 56, 90  # height of the title; width of an entry of a legend
SCALE = 3  # drawn this many times too large, then reduced: smooth lines and letters
BACKGROUND, INK, FAINT, GRID = "#ffffff", "#1c2733", "#6b7785", "#e4e8ec"
# Okabe and Ito's colour-blind safe palette.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#8a6fb0")


@dataclass(frozen=True)
class Panel:
    """Curves by label, as points (across, up), all above 0; ``across`` and ``up`` name the axes."""

    title: str
    across: str
    up: str
    curves: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class LogarithmicAxis:
    """Maps values in [low, high] to positions in [begin, end]."""

    low: float
    high: float
    begin: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], begin: float, end: float) -> LogarithmicAxis:
        """An axis with a margin of a third below and above the values, which must be above 0."""
        return cls(min(values) / 1.3, max(values) * 1.3, begin, end)

    def place(self, value: float) -> float:
        """Position of a value; equal ratios have equal distances."""
        return self.begin + (self.end - self.begin) * math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> Iterator[float]:
        """Powers of ten in the range; if there are few of them, also some of their multiples."""
        span = self.high / self.low
        digits = (1, 1.5, 2, 3, 5, 7) if span < 8 else (1, 2, 5) if span < 300 else (1,)
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            yield from (digit * 10.0**power for digit in digits if self.low <= digit * 10.0**power <= self.high)


def draw_panels(panels: Sequence[Panel], *, title: str) -> Image.Image:
    """All panels under one title."""
    rows = math.ceil(len(panels) / COLUMNS)
    size = (WIDTH * min(COLUMNS, len(panels)), HEADER + HEIGHT * rows)
    image = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), BACKGROUND)
    pen = _Pen(ImageDraw.Draw(image))
    pen.text((20, 18), title, INK, 22)
    for index, panel in enumerate(panels):
        _draw(pen, panel, WIDTH * (index % COLUMNS), HEADER + HEIGHT * (index // COLUMNS))
    return image.resize(size, Image.Resampling.LANCZOS)


class _Pen:
    """Draws at ``SCALE`` times the final size."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self.draw = draw

    def line(self, places: Sequence[tuple[float, float]], colour: str, width: float) -> None:
        self.draw.line([(x * SCALE, y * SCALE) for x, y in places], colour, round(width * SCALE), joint="curve")

    def dot(self, x: float, y: float, colour: str) -> None:
        self.draw.ellipse([(x - 4) * SCALE, (y - 4) * SCALE, (x + 4) * SCALE, (y + 4) * SCALE], colour)

    def text(self, place: tuple[float, float], text: str, colour: str, size: int, anchor: str = "la") -> None:
        letters = ImageFont.load_default(size * SCALE)
        corner = (place[0] * SCALE, place[1] * SCALE)
        self.draw.text(corner, text, colour, letters, anchor=anchor, stroke_width=2 * SCALE, stroke_fill=BACKGROUND)


def _draw(pen: _Pen, panel: Panel, left: int, top: int) -> None:
    """The panel with its corner at (left, top)."""
    points = [point for curve in panel.curves.values() for point in curve]
    across = LogarithmicAxis.around([point[0] for point in points], left + LEFT, left + WIDTH - RIGHT)
    up = LogarithmicAxis.around([point[1] for point in points], top + HEIGHT - BOTTOM, top + TOP)
    for value in sorted({point[0] for point in points}):  # ticks at the few measured values
        pen.line([(across.place(value), up.begin), (across.place(value), up.end)], GRID, 1)
        pen.text((across.place(value), up.begin + 6), f"{value:,.0f}", FAINT, 12, "ma")
    for value in up.ticks():
        pen.line([(across.begin, up.place(value)), (across.end, up.place(value))], GRID, 1)
        pen.text((across.begin - 8, up.place(value)), f"{value:,g}", FAINT, 12, "rm")
    pen.line([(across.begin, up.end), (across.begin, up.begin), (across.end, up.begin)], FAINT, 1)
    pen.text((left + 20, top + 10), panel.title, INK, 13)
    pen.text(((across.begin + across.end) / 2, up.begin + 24), panel.across, INK, 13, "ma")
    pen.text((left + 20, up.end - 8), panel.up, INK, 13, "ls")
    for index, (label, curve) in enumerate(panel.curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        places = [(across.place(x), up.place(y)) for x, y in curve]
        pen.line(places, colour, 2.5)
        for x, y in places:
            pen.dot(x, y, colour)
        # Above the plot: curves may lie anywhere within.
        begin = across.end - LEGEND * (len(panel.curves) - index)
        pen.line([(begin, up.end - 13), (begin + 22, up.end - 13)], colour, 3)
        pen.text((begin + 28, up.end - 13), label, INK, 13, "lm")
