"""Finite scalar quantization, FSQ (Mentzer et al. 2023, arXiv 2309.15505): every channel is rounded to a few levels.

There is no codebook: the codes are the points of a fixed grid, and no loss is needed.

Shapes: B images, N tokens, D channels, K = product of the levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from semhitok.quantizers.base import Float32Module, FormulaQuantizer, straight_through
from semhitok.types import Quantized

MARGIN = 1e-3  # bounds are widened by this fraction, so that the outermost levels are reached at finite values


class FiniteScalarQuantizer(Float32Module, FormulaQuantizer):
    """Channel d takes one of ``levels[d]`` values, evenly spaced in [-1, 1].

    Args:
        levels: number of values of each channel, at least 3, as the bound of two would not be symmetric; D is their number and K their product.

    Raises:
        ValueError: a number of levels is below 3, or there is none.
    """

    codebooks = ()

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 3:
            raise ValueError(f"FSQ needs at least one channel of at least 3 levels each, got {list(levels)}")
        self.levels = tuple(levels)

    @property
    def counts_shape(self) -> tuple[int, ...]:
        """(K,)."""
        return (math.prod(self.levels),)

    def forward(self, z_BND: Tensor) -> Quantized:
        """Bound each channel by a tanh and round it (eq. 1 and appendix A.1 there).

        Args:
            z_BND: (B,N,D), any float dtype; rounded in fp32.

        Returns:
            codes (B,N,D) in [-1,1], straight-through to the bounded features; ids (B,N), the first channel counting in ones;
            no losses.
        """
        levels_D = self._levels(z_BND.device)
        half_D = (levels_D - 1) * (1 + MARGIN) / 2
        offset_D = torch.where(levels_D % 2 == 0, 0.5, 0.0)
        shift_D = (offset_D / half_D).atanh()
        bounded_BND = (z_BND.float() + shift_D).tanh() * half_D - offset_D
        steps_BND = bounded_BND.detach().round()
        ids_BN = ((steps_BND + levels_D // 2) * self._base(z_BND.device)).sum(dim=-1).long()
        codes_BND = straight_through(bounded_BND / (levels_D // 2), self.lookup(ids_BN))
        return Quantized(codes_BND.to(z_BND.dtype), ids_BN, {})

    def lookup(self, ids: Tensor) -> Tensor:
        """Grid points of ids of any shape (...) -> (...,D), fp32."""
        levels_D = self._levels(ids.device)
        steps = ids[..., None] // self._base(ids.device).long() % levels_D.long()
        return (steps - levels_D // 2) / (levels_D // 2)

    def _levels(self, device: torch.device) -> Tensor:
        return torch.tensor(self.levels, dtype=torch.float32, device=device)

    def _base(self, device: torch.device) -> Tensor:
        """The weight of each channel's step in the id."""
        weights = [math.prod(self.levels[:channel]) for channel in range(len(self.levels))]
        return torch.tensor(weights, dtype=torch.float32, device=device)
