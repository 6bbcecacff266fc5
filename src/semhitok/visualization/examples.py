"""Labelled pictures of originals over reconstructions, drawn with Pillow and its built-in font."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw
from torch import Tensor

from semhitok.data.transforms import to_pil
from semhitok.metrics.reconstruction import psnr_per_image
from semhitok.visualization.canvas import (
    BACKGROUND,
    FAINT,
    GAP,
    HEADING,
    INK,
    MARGIN,
    blank,
    enlarged,
    font,
    head_height,
    head_width,
)

CAPTION = 32  # height in pixels of the line under a pair


@dataclass(frozen=True)
class Examples:
    """A few images of a data set and their reconstructions: (n,3,H,W) each, in [-1,1]."""

    originals: Tensor
    reconstructions: Tensor


def draw_examples(
    groups: Mapping[str, Examples], *, title: str, subtitle: str = "", tile: int = 160, columns: int = 8
) -> Image.Image:
    """Draw each group with its heading, originals, their reconstructions below, and the PSNR of each.

    Args:
        groups: examples by heading.
        title, subtitle: at the head of the picture; the subtitle may have several lines.
        tile: side of a tile in pixels; small images are enlarged by a whole factor without smoothing.
        columns: images per row.
    """
    blocks = {name: _blocks(examples, tile, columns) for name, examples in groups.items()}
    label_width = math.ceil(font(15).getlength("reconstruction")) + 16
    block_width = max(block.width for pictures in blocks.values() for block in pictures)
    width = 2 * MARGIN + max(head_width(title, subtitle), label_width + block_width)
    head = head_height(subtitle)
    body = sum(HEADING + sum(block.height for block in pictures) for pictures in blocks.values())
    picture, draw = blank(width, head + body + MARGIN, title=title, subtitle=subtitle)
    left, y = MARGIN + label_width, head
    for name, pictures in blocks.items():
        draw.text((left, y + 10), name, INK, font(18))
        y += HEADING
        for block in pictures:
            picture.paste(block, (left, y))
            tiles = block.height - CAPTION
            draw.text((left - 12, y + tiles // 4), "original", FAINT, font(15), anchor="rm")
            draw.text((left - 12, y + 3 * tiles // 4), "reconstruction", FAINT, font(15), anchor="rm")
            y += block.height
    return picture


def _blocks(examples: Examples, tile: int, columns: int) -> list[Image.Image]:
    """Rows of at most ``columns`` originals over their reconstructions, with captions below."""
    psnr = psnr_per_image(examples.originals, examples.reconstructions).tolist()
    pairs = [
        (enlarged(to_pil(original), tile), enlarged(to_pil(copy), tile), f"{value:.1f} dB")
        for original, copy, value in zip(examples.originals, examples.reconstructions, psnr, strict=True)
    ]
    width, height = pairs[0][0].size
    blocks = []
    for start in range(0, len(pairs), columns):
        row = pairs[start : start + columns]
        block = Image.new("RGB", (len(row) * (width + GAP) - GAP, 2 * (height + GAP) + CAPTION), BACKGROUND)
        for column, (original, copy, caption) in enumerate(row):
            x = column * (width + GAP)
            block.paste(original, (x, 0))
            block.paste(copy, (x, height + GAP))
            place = (x + width // 2, 2 * (height + GAP))
            ImageDraw.Draw(block).text(place, caption, FAINT, font(14), anchor="ma")
        blocks.append(block)
    return blocks
