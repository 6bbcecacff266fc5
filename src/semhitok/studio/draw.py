"""The tab *Draw*: images from prompts, row by row."""

from __future__ import annotations

from collections.abc import Iterator

from semhitok.inference.image_generator import ImageGenerator
from semhitok.studio.html import figure, picture, row, section
from semhitok.studio.workspace import Workspace

MOST_IMAGES = 16
PROMPTS = ("a rabbit", "two bananas", "a photo of a red car", "a bird and a tree")
"""Prompts that the page offers."""


def draw(
    workspace: Workspace, model: str, prompts: str, guidance: float, first_seed: float | None, count: int
) -> Iterator[str]:
    """The grid of images after each row of tokens: a line for each prompt, a column for each seed.

    Args:
        workspace: loads the language model.
        model: its name.
        prompts: one in each line.
        guidance: see ``ImageGenerator``.
        first_seed: seed of the first column; later columns count up.
        count: number of seeds.

    Raises:
        ValueError: no prompt, one that the model cannot take, or more than ``MOST_IMAGES`` images.
    """
    lines = [line.strip() for line in prompts.splitlines() if line.strip()]
    if not lines:
        raise ValueError("write what the image should show")
    if first_seed is None or first_seed < 0 or first_seed != int(first_seed):
        raise ValueError("the seed must be a whole number of at least 0")
    if len(lines) * count > MOST_IMAGES:
        raise ValueError(
            f"at most {MOST_IMAGES} images are drawn at once, {len(lines)} prompts x {count} seeds are more"
        )
    generator = ImageGenerator(*workspace.language_model(model), guidance)
    generator.check((f"prompt {number}", line) for number, line in enumerate(lines, 1))
    seeds = [int(first_seed) + index for index in range(count)]
    for images in generator.stream([line for line in lines for _ in seeds], seeds * len(lines)):
        parts = []
        for number, line in enumerate(lines):
            own = images[number * count : (number + 1) * count]
            if not own:
                break
            cards = [
                figure(picture(image, f"{line}, seed {seed}"), f"seed {seed}")
                for seed, image in zip(seeds, own, strict=True)
            ]
            parts.append(section(line, "", row(cards, "drawn")))
        yield "".join(parts)
