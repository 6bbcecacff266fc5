"""The rate plot: PSNR against bits per image, drawn with Pillow and its built-in font."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from semhitok.metrics.rate import RatePoint
from semhitok.visualization.canvas import BACKGROUND, FAINT, INK

WIDTH, HEIGHT = 900, 560
LEFT, RIGHT, TOP, BOTTOM = 70, 28, 110, 70
SCALE = 3  # drawn this many times too large, then reduced: smooth lines and letters
GRID = "#e4e8ec"
# Okabe and Ito's colour-blind safe palette; the first curve is the tokenizer's.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#8a6fb0", "#56b4e9", "#e69f00")


def draw_rate_plot(curves: Mapping[str, Sequence[RatePoint]], *, title: str, subtitle: str = "") -> Image.Image:
    """Curves by label on a logarithmic axis of bits; a curve of one point is drawn as a diamond with its figures."""
    canvas = _Canvas([point for points in curves.values() for point in points])
    canvas.text((20, 18), title, INK, 22)
    canvas.text((20, 49), subtitle, FAINT, 14)
    canvas.axes("bits per image (logarithmic)", "PSNR (dB)")
    # Single points last, on top of the curves.
    styled = [(label, points, COLOURS[index % len(COLOURS)]) for index, (label, points) in enumerate(curves.items())]
    for _, points, colour in sorted(styled, key=lambda entry: -len(entry[1])):
        canvas.curve(points, colour)
    canvas.legend([(label, colour, len(points) == 1) for label, points, colour in styled])
    return canvas.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


class _Canvas:
    """Maps bits and decibels to pixels and draws at ``SCALE`` times the final size."""

    def __init__(self, points: Sequence[RatePoint]) -> None:
        self.image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), BACKGROUND)
        self.draw = ImageDraw.Draw(self.image)
        self.low_bits = min(point.bits for point in points) / 1.4
        self.high_bits = max(point.bits for point in points) * 1.4
        self.low_psnr = 2 * math.floor((min(point.psnr for point in points) - 0.5) / 2)
        self.high_psnr = 2 * math.ceil((max(point.psnr for point in points) + 0.5) / 2)

    def place(self, bits: float, psnr: float) -> tuple[float, float]:
        across = math.log(bits / self.low_bits) / math.log(self.high_bits / self.low_bits)
        up = (psnr - self.low_psnr) / (self.high_psnr - self.low_psnr)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def line(self, places: Sequence[tuple[float, float]], colour: str, width: float) -> None:
        self.draw.line([(x * SCALE, y * SCALE) for x, y in places], colour, round(width * SCALE), joint="curve")

    def text(self, place: tuple[float, float], text: str, colour: str, size: int, anchor: str = "la") -> None:
        letters = ImageFont.load_default(size * SCALE)
        corner = (place[0] * SCALE, place[1] * SCALE)
        # The halo keeps letters readable where they cross a line.
        self.draw.text(corner, text, colour, letters, anchor=anchor, stroke_width=3 * SCALE, stroke_fill=BACKGROUND)

    def axes(self, across: str, up: str) -> None:
        step = next(step for step in (1, 2, 5, 10, 20) if (self.high_psnr - self.low_psnr) / step <= 10)
        first = step * math.ceil(self.low_psnr / step)
        for psnr in range(first, math.floor(self.high_psnr) + 1, step):
            self.line([self.place(self.low_bits, psnr), self.place(self.high_bits, psnr)], GRID, 1)
            x, y = self.place(self.low_bits, psnr)
            self.text((x - 10, y), str(psnr), FAINT, 14, "rm")
        for bits in (digit * 10**power for power in range(10) for digit in (1, 2, 5)):
            if self.low_bits <= bits <= self.high_bits:
                self.line([self.place(bits, self.low_psnr), self.place(bits, self.high_psnr)], GRID, 1)
                x, y = self.place(bits, self.low_psnr)
                self.text((x, y + 8), f"{bits:,}", FAINT, 14, "ma")
        top, corner = self.place(self.low_bits, self.high_psnr), self.place(self.low_bits, self.low_psnr)
        self.line([top, corner, self.place(self.high_bits, self.low_psnr)], FAINT, 1)
        self.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 32), across, INK, 15, "ma")
        self.text((20, TOP - 12), up, INK, 15, "ls")

    def curve(self, points: Sequence[RatePoint], colour: str) -> None:
        places = [self.place(point.bits, point.psnr) for point in points]
        if len(places) == 1:
            x, y = places[0]
            self.diamond(x, y, 9, colour)
            # Above and to the left, where rising curves leave room, unless that is outside.
            side, anchor = (-12, "rs") if x > LEFT + 180 else (14, "ls")
            self.text((x + side, y - 8), f"{points[0].psnr:.1f} dB, {points[0].bits:,.0f} bits", colour, 15, anchor)
            return
        self.line(places, colour, 2.5)
        for x, y in places:
            self.draw.ellipse([(x - 4) * SCALE, (y - 4) * SCALE, (x + 4) * SCALE, (y + 4) * SCALE], colour)

    def diamond(self, x: float, y: float, radius: float, colour: str) -> None:
        corners = [(x - radius, y), (x, y - radius), (x + radius, y), (x, y + radius)]
        self.draw.polygon([(a * SCALE, b * SCALE) for a, b in corners], colour, BACKGROUND, width=SCALE)

    def legend(self, entries: Sequence[tuple[str, str, bool]]) -> None:
        """Top left, where rising curves leave room."""
        for row, (label, colour, single) in enumerate(entries):
            x, y = LEFT + 18, TOP + 20 + 25 * row
            if single:
                self.diamond(x + 13, y, 8, colour)
            else:
                self.line([(x, y), (x + 26, y)], colour, 3)
            self.text((x + 36, y), label, INK, 15, "lm")
