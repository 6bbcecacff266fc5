"""A picture of generated images: a row for each prompt, a column for each seed."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from semhitok.visualization.canvas import (
    FAINT,
    GAP,
    INK,
    MARGIN,
    blank,
    enlarged,
    font,
    head_width,
    scale_to,
    wrapped,
)

TILE = 160  # minimum side of a tile in pixels
LABEL = 260  # width in pixels of the column with the prompts
LINE = 19  # height in pixels of a line of a prompt
NOT_YET = "#e6e9ed"  # colour of images still missing


def draw_prompt_grid(
    prompts: Sequence[str], seeds: Sequence[int], images: Sequence[Image.Image], *, side: int, title: str
) -> Image.Image:
    """Draw the grid.

    Args:
        prompts: written beside their rows, truncated to the height of a row.
        seeds: written over the columns.
        images: square images, row by row; there may be fewer than cells.
        side: side of an image in pixels. Images are enlarged by a whole factor without smoothing.
        title: at the head of the picture.
    """
    tile = side * scale_to(side, TILE)
    step, left, top = tile + GAP, MARGIN + LABEL, MARGIN + 70
    width = max(left + len(seeds) * step - GAP, MARGIN + head_width(title, "")) + MARGIN
    picture, draw = blank(width, top + len(prompts) * step - GAP + MARGIN, title=title)
    for column, seed in enumerate(seeds):
        draw.text((left + column * step + tile // 2, top - 8), f"seed {seed}", FAINT, font(15), anchor="mb")
    for row, prompt in enumerate(prompts):
        for number, line in enumerate(wrapped(prompt, LABEL - 16, tile // LINE)):
            draw.text((MARGIN, top + row * step + LINE * number), line, INK, font(15))
    for place in range(len(prompts) * len(seeds)):
        row, column = divmod(place, len(seeds))
        x, y = left + column * step, top + row * step
        if place < len(images):
            picture.paste(enlarged(images[place], TILE), (x, y))
        else:
            draw.rectangle((x, y, x + tile - 1, y + tile - 1), NOT_YET)
    return picture
