"""Checks of a tokenizer's inputs, with one-sentence errors."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")


def check_pixel_values(pixel_values: Tensor) -> tuple[int, int]:
    """Height and width of a batch of images (B,3,H,W) of floating-point numbers.

    Raises:
        ValueError: the shape or type is another.
    """
    if pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
        raise ValueError(f"pixel_values must have shape (batch, 3, height, width), got {tuple(pixel_values.shape)}")
    if not pixel_values.is_floating_point():
        raise ValueError(f"pixel_values must be floating-point numbers in [-1, 1], got {pixel_values.dtype}")
    return pixel_values.shape[2], pixel_values.shape[3]


def check_patches(pixel_values: Tensor, patch_size: int) -> tuple[int, int]:
    """Height and width of a batch of images (B,3,H,W) that consist of whole patches.

    Raises:
        ValueError: the shape or type is another, or a side is no multiple of ``patch_size``.
    """
    height, width = check_pixel_values(pixel_values)
    if height % patch_size or width % patch_size or not height or not width:
        raise ValueError(f"the sides of images must be multiples of {patch_size} pixels, got {height}x{width}")
    return height, width


def encoding_part(part: Part | None) -> Part:
    """A part of a model that only encoding needs.

    Raises:
        ValueError: the model was loaded without it.
    """
    if part is None:
        raise ValueError("this model was loaded without its encoder side (encoder=False) and cannot encode images")
    return part


def check_ids(ids: Tensor, vocab_size: int, codes_per_token: int | None = None, *, check_range: bool = True) -> Tensor:
    """Ids (B,N), or (B,N,C) if ``codes_per_token`` is C, as int64.

    Args:
        check_range: look at the range of the ids, for which the host waits if they are on a GPU.

    Raises:
        ValueError: the shape or type is another, or an id is outside [0, vocab_size); values are not checked in a graph of
            ``torch.export``, which cannot depend on them.
    """
    fraction = ids.is_floating_point() or ids.is_complex()
    if codes_per_token is None and (ids.ndim != 2 or fraction):
        raise ValueError(f"ids must be whole numbers of shape (batch, tokens), got {ids.dtype} {tuple(ids.shape)}")
    if codes_per_token is not None and (ids.ndim != 3 or fraction or ids.shape[2] != codes_per_token):
        raise ValueError(
            f"ids must be whole numbers of shape (batch, tokens, {codes_per_token}), {codes_per_token} codes per token, "
            f"got {ids.dtype} {tuple(ids.shape)}"
        )
    ids = ids.long()  # torch has no minimum of unsigned integers
    if check_range and ids.numel() and not torch.compiler.is_exporting():
        lowest, highest = torch.stack(ids.aminmax()).tolist()
        if lowest < 0 or highest >= vocab_size:
            raise ValueError(f"ids must lie in [0, {vocab_size}), got {highest if highest >= vocab_size else lowest}")
    return ids


def check_grid(ids: Tensor, grid: tuple[int, int] | None) -> tuple[int, int]:
    """Rows and columns of tokens for ids (B,N) or (B,N,C); a square grid by default.

    Raises:
        ValueError: the number of tokens does not match the grid.
    """
    rows, columns = (int(size) for size in grid) if grid is not None else (math.isqrt(ids.shape[1]),) * 2
    if rows * columns != ids.shape[1] or rows < 1:
        wanted = f"{rows}x{columns} = {rows * columns}" if grid is not None else "a square number of"
        raise ValueError(f"ids hold {ids.shape[1]} tokens per image, but the grid needs {wanted}; pass grid=")
    return rows, columns
