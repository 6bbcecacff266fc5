"""Pictures for people: originals over reconstructions, drawn with Pillow and its built-in font."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from semhitok.data.transforms import to_pil
from semhitok.metrics.reconstruction import psnr_per_image

BACKGROUND, INK, FAINT = "#ffffff", "#1c2733", "#6b7785"
MARGIN, GAP = 24, 8
HEADING, CAPTION = 38, 32  # heights in pixels


@dataclass(frozen=True)
class Examples:
    """A few images of a data set and what came back: (n,3,H,W) each, in [-1,1]."""

    originals: Tensor
    reconstructions: Tensor


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at a size in pixels, so that pictures look the same everywhere."""
    return ImageFont.load_default(size)


def draw_examples(
    groups: Mapping[str, Examples], *, title: str, subtitle: str = "", tile: int = 160, columns: int = 8
) -> Image.Image:
    """A labelled picture: for each group its heading, originals, their reconstructions below, and the PSNR of each.

    Args:
        groups: by heading.
        title, subtitle: at the head of the picture; the subtitle may have several lines.
        tile: side of a tile in pixels, reached by enlarging small images a whole number of times without smoothing,
            so that what is seen is what the tokenizer gave.
        columns: images beside each other; more of them go into further rows.
    """
    blocks = {name: _blocks(examples, tile, columns) for name, examples in groups.items()}
    label_width = math.ceil(font(15).getlength("reconstruction")) + 16
    text_width = max([font(24).getlength(title), *map(font(15).getlength, subtitle.splitlines())])
    block_width = max(block.width for pictures in blocks.values() for block in pictures)
    width = 2 * MARGIN + max(math.ceil(text_width), label_width + block_width)
    head = MARGIN + 40 + 21 * len(subtitle.splitlines())
    body = sum(HEADING + sum(block.height for block in pictures) for pictures in blocks.values())
    picture = Image.new("RGB", (width, head + body + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(picture)

    draw.text((MARGIN, MARGIN), title, INK, font(24))
    for number, line in enumerate(subtitle.splitlines()):
        draw.text((MARGIN, MARGIN + 40 + 21 * number), line, FAINT, font(15))
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
        (_enlarged(original, tile), _enlarged(copy, tile), f"{value:.1f} dB")
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


def _enlarged(image: Tensor, tile: int) -> Image.Image:
    """A picture, enlarged a whole number of times until its longer side is at least ``tile`` pixels."""
    factor = max(1, math.ceil(tile / max(image.shape[-2:])))
    picture = to_pil(image)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
