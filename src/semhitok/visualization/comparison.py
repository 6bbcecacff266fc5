"""A picture of originals over their reconstructions."""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

GAP = 4  # white pixels between tiles
SMALLEST_TILE = 128  # smaller images are enlarged by a whole number, without smoothing: pixels stay pixels


def comparison(originals: Tensor, reconstructions: Tensor, *, columns: int = 8) -> Image.Image:
    """Draw originals over reconstructions, in pairs of rows.

    Args:
        originals: (B,3,H,W) in [-1,1]; values outside are clamped.
        reconstructions: same shape.
        columns: images per row.

    Raises:
        ValueError: the shapes differ or are not those of images.
    """
    if originals.shape != reconstructions.shape or originals.ndim != 4 or originals.shape[1] != 3:
        shapes = f"{tuple(originals.shape)} and {tuple(reconstructions.shape)}"
        raise ValueError(f"a comparison needs two tensors of one shape (B,3,H,W), got {shapes}")
    top, bottom = _to_uint8(originals), _to_uint8(reconstructions)
    count, height, width, _ = top.shape
    enlarge = max(1, -(-SMALLEST_TILE // max(height, width)))
    columns = min(columns, count)
    pairs = -(-count // columns)
    tile_height, tile_width = enlarge * height, enlarge * width
    pair_height = 2 * (tile_height + GAP) + GAP
    canvas = Image.new("RGB", (columns * (tile_width + GAP) - GAP, pairs * pair_height - 2 * GAP), "white")
    for index in range(count):
        row, column = divmod(index, columns)
        for line, images in enumerate((top, bottom)):
            tile = Image.fromarray(images[index].numpy()).resize((tile_width, tile_height), Image.Resampling.NEAREST)
            canvas.paste(tile, (column * (tile_width + GAP), row * pair_height + line * (tile_height + GAP)))
    return canvas


def save_comparison(path: Path, originals: Tensor, reconstructions: Tensor, *, columns: int = 8) -> None:
    """Write ``comparison`` as PNG; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    comparison(originals, reconstructions, columns=columns).save(path)


def _to_uint8(images: Tensor) -> Tensor:
    """(B,3,H,W) in [-1,1] to uint8 (B,H,W,3)."""
    scaled = (images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5
    return rearrange(scaled.round().to(torch.uint8), "b c h w -> b h w c").contiguous()
