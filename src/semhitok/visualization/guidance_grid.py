"""A picture of what guidance does: a row for each prompt, a column for each guidance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from semhitok.data.transforms import to_pil
from semhitok.visualization.examples import BACKGROUND, FAINT, GAP, HEADING, INK, MARGIN, font

TEXT_WIDTH = 220  # pixels beside the images


def guidance_picture(
    drawn: Mapping[str, Tensor], prompts: Sequence[str], *, title: str, subtitle: str = "", tile: int = 128
) -> Image.Image:
    """Drawn images under their guidance, each row with its prompt beside it.

    Args:
        drawn: by heading, images (N,3,H,W) in [-1,1] as ``generation.draw_images`` gives them.
        prompts: N texts.
        title, subtitle: at the head of the picture.
        tile: side in pixels that images are enlarged to at least, a whole number of times and without smoothing.

    Raises:
        ValueError: no guidance or no prompt, or another number of images than of prompts.
    """
    if not drawn or not prompts:
        raise ValueError(f"a picture needs guidances and prompts, got {len(drawn)} and {len(prompts)}")
    for heading, images in drawn.items():
        if len(images) != len(prompts):
            raise ValueError(f"{heading} has {len(images)} images for {len(prompts)} prompts")
    height, width = next(iter(drawn.values())).shape[-2:]
    factor = max(1, math.ceil(tile / max(height, width)))
    height, width = factor * height, factor * width
    head = MARGIN + 40 + 21 * len(subtitle.splitlines())
    left, top = MARGIN + TEXT_WIDTH + GAP, head + HEADING
    text_width = max([font(24).getlength(title), *map(font(15).getlength, subtitle.splitlines())])
    size = (
        max(left + len(drawn) * (width + GAP) - GAP, MARGIN + math.ceil(text_width)) + MARGIN,
        top + len(prompts) * (height + GAP) - GAP + MARGIN,
    )
    picture = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN), title, INK, font(24))
    for number, line in enumerate(subtitle.splitlines()):
        draw.text((MARGIN, MARGIN + 40 + 21 * number), line, FAINT, font(15))
    for column, (heading, images) in enumerate(drawn.items()):
        x = left + column * (width + GAP)
        draw.text((x + width // 2, head + 10), heading, INK, font(16), anchor="ma")
        for row, image in enumerate(images):
            enlarged = to_pil(image).resize((width, height), Image.Resampling.NEAREST)
            picture.paste(enlarged, (x, top + row * (height + GAP)))
    for row, prompt in enumerate(prompts):
        middle = top + row * (height + GAP) + height // 2
        draw.multiline_text((MARGIN, middle), _wrapped(prompt), INK, font(15), anchor="lm", spacing=4)
    return picture


def _wrapped(text: str) -> str:
    """Broken between words into lines that fit beside the images."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font(15).getlength(longer) > TEXT_WIDTH:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
