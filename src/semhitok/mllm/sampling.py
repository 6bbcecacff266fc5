"""Sampling of the next id from logits.

Shapes: P positions, V ids.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """Sampling with temperature, then top-k, then top-p.

    Attributes:
        temperature: 0 selects the most likely id.
        top_k: number of ids kept; 0 keeps all. Liquid samples with 4,096.
        top_p: fraction of the probability that is kept, in (0, 1].
        seed: image i of a batch is sampled with seed + i, independent of batch and device.

    Raises:
        ValueError: a value is out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 0, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")

    def draws(self, rows: int, count: int) -> Tensor:
        """All random numbers of a run: (rows,count) in [0,1), one generator for each row."""
        generators = [torch.Generator().manual_seed(self.seed + row) for row in range(rows)]
        return torch.stack([torch.rand(count, generator=generator) for generator in generators])

    def choose(self, logits_PV: Tensor, draws_P: Tensor) -> Tensor:
        """Ids (P): the inverse of the cumulative distribution at ``draws_P``."""
        if self.temperature == 0:
            return logits_PV.argmax(dim=-1)
        probabilities_PV = self.probabilities(logits_PV).double()
        cumulative_PV = probabilities_PV.cumsum(dim=-1)
        # The draws have 24 bits, so that the product stays below the total and an id of probability 0 is never hit.
        heights_P1 = draws_P.double()[:, None] * cumulative_PV[:, -1:]
        return torch.searchsorted(cumulative_PV, heights_P1, right=True)[:, 0]

    def probabilities(self, logits_PV: Tensor) -> Tensor:
        """The distribution from which ids are sampled: (P,V), fp32; temperature must be above 0."""
        logits_PV = logits_PV.float() / self.temperature
        if 0 < self.top_k < logits_PV.shape[-1]:
            threshold_P1 = logits_PV.topk(self.top_k, dim=-1).values[:, -1:]
            logits_PV = logits_PV.masked_fill(logits_PV < threshold_P1, float("-inf"))
        probabilities_PV = logits_PV.softmax(dim=-1)
        if self.top_p < 1:
            sorted_PV, order_PV = probabilities_PV.sort(dim=-1, descending=True)
            # An id is kept if the more likely ones do not reach top_p.
            kept_PV = sorted_PV.cumsum(dim=-1) - sorted_PV < self.top_p
            probabilities_PV = probabilities_PV * torch.zeros_like(kept_PV).scatter(-1, order_PV, kept_PV)
        return probabilities_PV / probabilities_PV.sum(dim=-1, keepdim=True)
