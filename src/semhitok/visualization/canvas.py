"""Shared parts of all pictures: colours, Pillow's built-in font, the head, wrapped text, enlarged images."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont

BACKGROUND, INK, FAINT = "#ffffff", "#1c2733", "#6b7785"
MARGIN, GAP = 24, 8
HEADING = 38  # height in pixels of a line of headings


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at a size in pixels, so that pictures look the same everywhere."""
    return ImageFont.load_default(size)


def head_height(subtitle: str) -> int:
    """Height in pixels of title and subtitle at the top of a picture."""
    return MARGIN + 40 + 21 * len(subtitle.splitlines())


def head_width(title: str, subtitle: str) -> int:
    """Width in pixels of the longest line of title and subtitle, without margins."""
    return math.ceil(max([font(24).getlength(title), *map(font(15).getlength, subtitle.splitlines())]))


def blank(width: int, height: int, *, title: str, subtitle: str = "") -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A picture with nothing but its head, and its ``ImageDraw``."""
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN), title, INK, font(24))
    for number, line in enumerate(subtitle.splitlines()):
        draw.text((MARGIN, MARGIN + 40 + 21 * number), line, FAINT, font(15))
    return picture, draw


def wrapped(text: str, width: int, most: int | None = None) -> list[str]:
    """Wrap text into lines of at most ``width`` pixels in font 15; of more than ``most`` lines the last ends in an ellipsis."""
    lines, face = [""], font(15)
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and face.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines if most is None or len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1]} ..."]


def scale_to(side: int, tile: int) -> int:
    """Whole factor by which an image is enlarged so that its longer side has at least ``tile`` pixels."""
    return max(1, math.ceil(tile / side))


def enlarged(image: Image.Image, tile: int) -> Image.Image:
    """An image enlarged by ``scale_to`` without smoothing, so that the tokenizer's pixels are visible."""
    factor = scale_to(max(image.size), tile)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
