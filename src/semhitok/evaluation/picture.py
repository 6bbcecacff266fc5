"""Pictures for people: originals over reconstructions, drawn with Pillow and its built-in font."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

BACKGROUND, INK, FAINT = "#ffffff", "#1c2733", "#6b7785"
MARGIN, GAP = 24, 8


@dataclass(frozen=True)
class Examples:
    """A few images of a data set and what came back.

    Attributes:
        originals, reconstructions: (n,3,H,W) uint8.
        captions: one short line for each, for instance its PSNR.
    """

    originals: Tensor
    reconstructions: Tensor
    captions: Sequence[str]


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at a size in pixels, so that pictures look the same everywhere."""
    return ImageFont.load_default(size)


def draw_examples(groups: Mapping[str, Examples], *, title: str, subtitle: str = "", tile: int = 160) -> Image.Image:
    """A labelled picture: for each group its heading, a row of originals, and below each its reconstruction.

    Args:
        groups: by heading.
        title, subtitle: at the head of the picture; the subtitle may have several lines.
        tile: side of a tile in pixels, reached by enlarging small images a whole number of times without smoothing,
            so that what is seen is what the tokenizer gave.
    """
    label_width = math.ceil(font(15).getlength("reconstruction")) + 16
    tiles = {
        name: (_tiles(examples.originals, tile), _tiles(examples.reconstructions, tile))
        for name, examples in groups.items()
    }
    row_width = max(len(rows[0]) * (rows[0][0].width + GAP) - GAP for rows in tiles.values())
    heights = [38 + 2 * (rows[0][0].height + GAP) + 30 for rows in tiles.values()]
    lines = subtitle.splitlines()
    width = 2 * MARGIN + label_width + row_width
    width = max(width, 2 * MARGIN + math.ceil(max([font(24).getlength(title), *map(font(15).getlength, lines)])))
    picture = Image.new("RGB", (width, 2 * MARGIN + 40 + 21 * len(lines) + sum(heights)), BACKGROUND)
    draw = ImageDraw.Draw(picture)

    draw.text((MARGIN, MARGIN), title, INK, font(24))
    y = MARGIN + 40
    for line in lines:
        draw.text((MARGIN, y), line, FAINT, font(15))
        y += 21
    left = MARGIN + label_width
    for (name, rows), examples, height in zip(tiles.items(), groups.values(), heights, strict=True):
        bottom = y + height
        draw.text((left, y + 10), name, INK, font(18))
        y += 38
        for label, row in zip(("original", "reconstruction"), rows, strict=True):
            draw.text((left - 12, y + row[0].height // 2), label, FAINT, font(15), anchor="rm")
            for column, image in enumerate(row):
                picture.paste(image, (left + column * (image.width + GAP), y))
            y += row[0].height + GAP
        for column, caption in enumerate(examples.captions):
            middle = left + column * (rows[0][0].width + GAP) + rows[0][0].width // 2
            draw.text((middle, y), caption, FAINT, font(14), anchor="ma")
        y = bottom
    return picture


def _tiles(images: Tensor, tile: int) -> list[Image.Image]:
    """uint8 (n,3,H,W) -> pictures, enlarged a whole number of times until the longer side is at least ``tile``."""
    factor = max(1, math.ceil(tile / max(images.shape[-2:])))
    pictures = [Image.fromarray(rearrange(image, "c h w -> h w c").cpu().numpy()) for image in images]
    return [picture.resize((picture.width * factor, picture.height * factor), 0) for picture in pictures]
