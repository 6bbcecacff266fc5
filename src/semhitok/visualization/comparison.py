"""A picture of originals over their reconstructions."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from semhitok.data.transforms import to_pil
from semhitok.visualization.canvas import enlarged

GAP = 4  # white pixels between tiles
SMALLEST_TILE = 128  # smaller images are enlarged by a whole factor, without smoothing


def comparison(originals: Tensor, reconstructions: Tensor, *, columns: int = 8) -> Image.Image:
    """Draw originals over reconstructions, in pairs of rows.

    Args:
        originals: (B,3,H,W) in [-1,1]; values outside are clamped.
        reconstructions: same shape.
        columns: images per row.

    Raises:
        ValueError: the shapes differ or are not (B,3,H,W).
    """
    if originals.shape != reconstructions.shape or originals.ndim != 4 or originals.shape[1] != 3:
        shapes = f"{tuple(originals.shape)} and {tuple(reconstructions.shape)}"
        raise ValueError(f"a comparison needs two tensors of one shape (B,3,H,W), got {shapes}")
    lines = [[enlarged(to_pil(image), SMALLEST_TILE) for image in images] for images in (originals, reconstructions)]
    count, (tile_width, tile_height) = len(originals), lines[0][0].size
    columns = min(columns, count)
    pairs = -(-count // columns)
    pair_height = 2 * (tile_height + GAP) + GAP
    canvas = Image.new("RGB", (columns * (tile_width + GAP) - GAP, pairs * pair_height - 2 * GAP), "white")
    for line, tiles in enumerate(lines):
        for index, tile in enumerate(tiles):
            row, column = divmod(index, columns)
            canvas.paste(tile, (column * (tile_width + GAP), row * pair_height + line * (tile_height + GAP)))
    return canvas


def save_comparison(path: Path, originals: Tensor, reconstructions: Tensor, *, columns: int = 8) -> None:
    """Write ``comparison`` as PNG; creates missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    comparison(originals, reconstructions, columns=columns).save(path)
