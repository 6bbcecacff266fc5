"""From a picture to a tensor of a given size and back, and the batched augmentations.

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

# Stream of randomness of the flips; epochs of the sample order use 0, 1, 2, ...
_FLIP_STREAM = -1


def fit_image(image: Image.Image, height: int, width: int, mode: FitMode = "crop") -> Image.Image:
    """Bring a picture to height x width pixels.

    ``crop`` keeps the aspect ratio: the largest centred window of the target's shape, scaled (the shorter side is
    resized and the middle kept, as ADM and every tokenizer paper evaluate); ``resize`` scales the whole picture and
    may distort it. Scaling is antialiased bicubic; a picture that already fits is returned pixel for pixel.
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
    # A gap of 3 averages whole pixels first where the picture is many times too large: faster, visually identical.
    return image.resize((width, height), Image.Resampling.BICUBIC, box=_inside(box, image), reducing_gap=3.0)


def _inside(box: tuple[float, float, float, float], image: Image.Image) -> tuple[float, float, float, float]:
    """Rounding can put a box 1e-13 outside the picture, which Pillow refuses."""
    left, top, right, bottom = box
    return max(left, 0.0), max(top, 0.0), min(right, image.width), min(bottom, image.height)


@dataclass(frozen=True)
class TileLayout:
    """How a picture was cut: rows x columns tiles in reading order, and the picture's own size in pixels."""

    rows: int
    columns: int
    height: int
    width: int


def tile_image(image: Image.Image, height: int, width: int) -> tuple[list[Image.Image], TileLayout]:
    """Cut a picture into tiles of height x width pixels, at its own resolution.

    What the last row and column lack is filled with the picture mirrored at its edge; ``untile`` cuts it off again.
    """
    rows, columns = -(-image.height // height), -(-image.width // width)
    pixels = np.asarray(image.convert("RGB"))
    padding = ((0, rows * height - image.height), (0, columns * width - image.width), (0, 0))
    pixels = np.pad(pixels, padding, mode="symmetric")
    tiles = rearrange(pixels, "(rows h) (columns w) c -> (rows columns) h w c", h=height, w=width)
    layout = TileLayout(rows=rows, columns=columns, height=image.height, width=image.width)
    return [Image.fromarray(np.ascontiguousarray(tile)) for tile in tiles], layout


def untile(tiles: Sequence[Image.Image], layout: TileLayout) -> Image.Image:
    """Put the tiles of ``tile_image``, all of one size, together again."""
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
    """(3,H,W) float in [-1,1] to a picture; values beyond are clamped. Inverse of ``to_float(to_uint8(image))``."""
    pixels = ((image.detach().float().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8).cpu()
    return Image.fromarray(np.ascontiguousarray(rearrange(pixels.numpy(), "c h w -> h w c")))


def random_flips(seed: int, positions: np.ndarray) -> np.ndarray:
    """(B,) bool: which samples to mirror, half of them; keyed by (seed, position)."""
    return random_bits(seed, _FLIP_STREAM, positions) >> np.uint64(63) == 1


def flip_images(images_BCHW: Tensor, flipped_B: Tensor) -> Tensor:
    """Mirror the chosen images left to right; any dtype and device."""
    return torch.where(rearrange(flipped_B, "b -> b 1 1 1"), images_BCHW.flip(-1), images_BCHW)
