"""A picture of the effect of guidance: a row for each prompt, a column for each guidance scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from semhitok.data.transforms import to_pil
from semhitok.visualization.canvas import (
    GAP,
    HEADING,
    INK,
    MARGIN,
    blank,
    enlarged,
    font,
    head_height,
    head_width,
    scale_to,
    wrapped,
)

TEXT_WIDTH = 220  # pixels beside the images


def guidance_picture(
    drawn: Mapping[str, Tensor], prompts: Sequence[str], *, title: str, subtitle: str = "", tile: int = 128
) -> Image.Image:
    """Generated images in columns by guidance, with the prompt beside each row.

    Args:
        drawn: images (N,3,H,W) in [-1,1] by heading, from ``draw_images``.
        prompts: N texts.
        title, subtitle: at the head of the picture.
        tile: minimum side in pixels; images are enlarged by a whole factor without smoothing.

    Raises:
        ValueError: no guidance or no prompt, or the numbers of images and prompts differ.
    """
    if not drawn or not prompts:
        raise ValueError(f"a picture needs guidances and prompts, got {len(drawn)} and {len(prompts)}")
    for heading, images in drawn.items():
        if len(images) != len(prompts):
            raise ValueError(f"{heading} has {len(images)} images for {len(prompts)} prompts")
    height, width = next(iter(drawn.values())).shape[-2:]
    factor = scale_to(max(height, width), tile)
    height, width = factor * height, factor * width
    head = head_height(subtitle)
    left, top = MARGIN + TEXT_WIDTH + GAP, head + HEADING
    picture, draw = blank(
        max(left + len(drawn) * (width + GAP) - GAP, MARGIN + head_width(title, subtitle)) + MARGIN,
        top + len(prompts) * (height + GAP) - GAP + MARGIN,
        title=title,
        subtitle=subtitle,
    )
    for column, (heading, images) in enumerate(drawn.items()):
        x = left + column * (width + GAP)
        draw.text((x + width // 2, head + 10), heading, INK, font(16), anchor="ma")
        for row, image in enumerate(images):
            picture.paste(enlarged(to_pil(image), tile), (x, top + row * (height + GAP)))
    for row, prompt in enumerate(prompts):
        middle = top + row * (height + GAP) + height // 2
        draw.multiline_text(
            (MARGIN, middle), "\n".join(wrapped(prompt, TEXT_WIDTH)), INK, font(15), anchor="lm", spacing=4
        )
    return picture
