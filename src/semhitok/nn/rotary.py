"""Axial rotary position embedding: the position encoding of every transformer here.

Half of each head's channels rotate with the row, half with the column, counted in patches. Nothing is learned or stored,
so any grid works, square or not, larger or smaller than in training. (Su et al. 2021, arXiv 2104.09864; two axes as in
Heo et al. 2024, arXiv 2403.13298.)

Shapes: B batch, H heads, N tokens, C channels per head.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Grids have 8 to a few dozen rows; a base of 100 spreads wavelengths from 6 to 600 patches.
BASE = 100.0


def axial_rotary(rows: int, columns: int, head_dim: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines for a grid in row-major order.

    Args:
        rows: number of token rows.
        columns: number of token columns.
        head_dim: channels per head, a multiple of 4.

    Returns:
        Two fp32 tensors (rows * columns, head_dim / 2): the rotation of each channel pair.

    Raises:
        ValueError: head_dim is not a multiple of 4.
    """
    if head_dim % 4:
        raise ValueError(f"axial rotary positions need a head dimension that is a multiple of 4, got {head_dim}")
    pairs = head_dim // 4
    frequency = BASE ** (-torch.arange(pairs, device=device, dtype=torch.float32) / pairs)
    row = torch.arange(rows, device=device, dtype=torch.float32)[:, None, None] * frequency
    column = torch.arange(columns, device=device, dtype=torch.float32)[None, :, None] * frequency
    angle = torch.cat([row.expand(rows, columns, pairs), column.expand(rows, columns, pairs)], dim=-1)
    angle_NC = angle.flatten(0, 1)
    return angle_NC.cos(), angle_NC.sin()


def apply_rotary(x_BHNC: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate channel pairs (c, c + C/2) of queries or keys; keeps shape and dtype."""
    cosine, sine = (angle.to(x_BHNC.dtype) for angle in rotary)
    first, second = x_BHNC.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
