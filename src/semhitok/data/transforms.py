"""Conversion of images to tensors of a given size and back, and batched augmentations.

Shapes: B images, C = 3 channels (RGB), H x W pixels. Stored images are uint8; model tensors are float in [-1,1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from semhitok.data.randomness import random_bits
from semhitok.types import FitMode

# Random stream of the flips; epochs of the sample order use 0, 1, 2, ...
_FLIP_STREAM = -1


def fit_image(image: Image.Image, height: int, width: int, mode: FitMode = "crop") -> Image.Image:
    """Fit an image to height x width pixels.

    ``crop`` keeps the aspect ratio: it scales the largest centred window of the target's shape (the shorter side is
    resized and the centre kept, as in the evaluation of ADM and tokenizer papers); ``resize`` scales the whole image and
    may distort it. Scaling is antialiased bicubic; an image that already fits keeps its pixels.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image size must be positive, not {height} x {width}.")
    box = (0.0, 0.0, float(image.width), float(image.height))
    if mode == "crop":
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        box = (left, top, left + scale * width, top + scale * height)
    elif mode != "resize":
        raise ValueError(f"the mode must be 'crop' or 'resize', not {mode!r}.")
    # For much larger images, a gap of 3 averages whole pixels first: faster and visually identical.
    return image.resize((width, height), Image.Resampling.BICUBIC, box=_inside(box, image), reducing_gap=3.0)


def _inside(box: tuple[float, float, float, float], image: Image.Image) -> tuple[float, float, float, float]:
    """Clip a box to the image: rounding can put it 1e-13 outside, which Pillow rejects."""
    left, top, right, bottom = box
    return max(left, 0.0), max(top, 0.0), min(right, image.width), min(bottom, image.height)


@dataclass(frozen=True)
class TileLayout:
    """Layout of tiles: rows x columns in reading order, and the image's size in pixels."""

    rows: int
    columns: int
    height: int
    width: int


def tile_image(image: Image.Image, height: int, width: int) -> tuple[list[Image.Image], TileLayout]:
    """Split an image into tiles of height x width pixels at its own resolution.

    The last row and column are padded by mirroring the image at its edge; ``untile`` removes the padding.
    """
    rows, columns = -(-image.height // height), -(-image.width // width)
    pixels = np.asarray(image.convert("RGB"))
    padding = ((0, rows * height - image.height), (0, columns * width - image.width), (0, 0))
    pixels = np.pad(pixels, padding, mode="symmetric")
    tiles = rearrange(pixels, "(rows h) (columns w) c -> (rows columns) h w c", h=height, w=width)
    layout = TileLayout(rows=rows, columns=columns, height=image.height, width=image.width)
    return [Image.fromarray(np.ascontiguousarray(tile)) for tile in tiles], layout


def untile(tiles: Sequence[Image.Image], layout: TileLayout) -> Image.Image:
    """Reassemble the tiles of ``tile_image``, all of one size."""
    if len(tiles) != layout.rows * layout.columns:
        raise ValueError(f"{layout.rows} x {layout.columns} tiles are needed, not {len(tiles)}.")
    pixels = np.stack([np.asarray(tile.convert("RGB")) for tile in tiles])
    pixels = rearrange(pixels, "(rows columns) h w c -> (rows h) (columns w) c", rows=layout.rows)
    return Image.fromarray(np.ascontiguousarray(pixels[: layout.height, : layout.width]))


def to_array(image: Image.Image) -> np.ndarray:
    """(3,H,W) uint8 array of an RGB picture."""
    return np.ascontiguousarray(rearrange(np.asarray(image.convert("RGB")), "h w c -> c h w"))


def to_uint8(image: Image.Image) -> Tensor:
    """(3,H,W) uint8 tensor of an RGB picture."""
    return torch.from_numpy(to_array(image))


def to_float(images: Tensor) -> Tensor:
    """uint8 in [0,255] to float32 in [-1,1], any shape."""
    return images.float() / 127.5 - 1.0


def to_pil(image: Tensor) -> Image.Image:
    """(3,H,W) float in [-1,1] to an image; other values are clamped. Inverse of ``to_float(to_uint8(image))``."""
    pixels = ((image.detach().float().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8).cpu()
    return Image.fromarray(np.ascontiguousarray(rearrange(pixels.numpy(), "c h w -> h w c")))


def random_flips(seed: int, positions: np.ndarray) -> np.ndarray:
    """(B,) bool: samples to mirror, half of them; a function of (seed, position)."""
    return random_bits(seed, _FLIP_STREAM, positions) >> np.uint64(63) == 1


def flip_images(images_BCHW: Tensor, flipped_B: Tensor) -> Tensor:
    """Mirror the chosen images left to right; any dtype and device."""
    return torch.where(rearrange(flipped_B, "b -> b 1 1 1"), images_BCHW.flip(-1), images_BCHW)
