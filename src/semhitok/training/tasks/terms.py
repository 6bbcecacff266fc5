"""Loss terms and metrics of micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def mean_terms(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, float | Tensor]:
    """The mean of every term over micro-batches of equal size, all of which have the same terms."""
    share = 1 / len(parts)
    total: dict[str, float | Tensor] = {}
    for terms in parts:
        for name, value in terms.items():
            total[name] = total.get(name, 0.0) + value * share
    return total


def mean_psnr(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Mean PSNR over images in dB, for clamped reconstructions; a scalar.

    Args:
        reconstruction, target: (B,3,H,W) in [-1,1], where the squared error is four times that on [0,1].
    """
    error_B = (reconstruction.clamp(-1, 1) - target).square().mean(dim=(1, 2, 3)) / 4
    return -10 * torch.log10(error_B).mean()
