"""A picture of originals over the reconstructions of several tokenizers, one row for each."""

from __future__ import annotations

import math
from collections.abc import Mapping

from PIL import Image, ImageDraw
from torch import Tensor

from semhitok.data.transforms import to_pil
from semhitok.metrics.reconstruction import psnr_per_image
from semhitok.visualization.canvas import FAINT, GAP, INK, MARGIN, blank, enlarged, font, head_height, head_width

CAPTION = 22  # height in pixels of the line under a row


def draw_side_by_side(
    originals: Tensor, copies: Mapping[str, Tensor], *, title: str, notes: Mapping[str, str], tile: int = 128
) -> Image.Image:
    """Draw one column per image: the original, then each tokenizer's reconstruction with its PSNR.

    Args:
        originals: (n,3,H,W) in [-1,1].
        copies: reconstructions of the same shape by the name of the tokenizer.
        title: at the head of the picture.
        notes: a line under the name of each tokenizer.
        tile: side of a tile in pixels; small images are enlarged by a whole factor without smoothing.
    """
    rows: list[tuple[str, str, list[Image.Image], list[str]]] = [
        ("original", "", [enlarged(to_pil(image), tile) for image in originals], [""] * len(originals))
    ]
    for name, images in copies.items():
        captions = [f"{value:.1f} dB" for value in psnr_per_image(originals, images).tolist()]
        rows.append((name, notes[name], [enlarged(to_pil(image), tile) for image in images], captions))
    width, height = rows[0][2][0].size
    label = math.ceil(max(font(15).getlength(text) for name, note, *_ in rows for text in (name, note))) + 16
    line = height + CAPTION + GAP
    inner = max(label + len(originals) * (width + GAP), head_width(title, ""))
    picture, draw = blank(2 * MARGIN + inner, head_height("") + len(rows) * line + MARGIN, title=title)
    for number, (name, note, images, captions) in enumerate(rows):
        y = head_height("") + number * line
        _label(draw, MARGIN + label - 12, y + height // 2, name, note)
        for column, (image, caption) in enumerate(zip(images, captions, strict=True)):
            x = MARGIN + label + column * (width + GAP)
            picture.paste(image, (x, y))
            draw.text((x + width // 2, y + height + 2), caption, FAINT, font(14), anchor="ma")
    return picture


def _label(draw: ImageDraw.ImageDraw, x: float, y: float, name: str, note: str) -> None:
    draw.text((x, y - (9 if note else 0)), name, INK, font(15), anchor="rm")
    if note:
        draw.text((x, y + 11), note, FAINT, font(14), anchor="rm")
