"""Sampling of the next id from logits.

Ids are drawn by the Gumbel-max trick: the largest sum of a log-probability and a Gumbel number is distributed as the
probabilities (Gumbel 1954, lecture 6). Rounding changes a choice only if it swaps the two largest sums, whereas the borders of
a cumulative distribution over thousands of ids move with every sum: a drawing would depend on its batch.

Shapes: B images, V ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semhitok.transfer import to_device


@dataclass(frozen=True)
class Sampling:
    """Sampling with temperature, then top-k, then top-p.

    Attributes:
        temperature: 0 selects the most likely id.
        top_k: number of ids kept; 0 keeps all. Liquid samples with 4,096.
        top_p: fraction of the probability that is kept, in (0, 1].
        seed: image i of a batch is sampled with seed + i. Its random numbers depend on that and on the position only, not on
            the batch or the device.

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

    def noise(self, rows: int, position: int, size: int) -> Tensor:
        """Standard Gumbel numbers (rows,size), fp32, of one position; row i is keyed by (seed + i, position)."""
        return gumbel_noise([(self.seed + row, position) for row in range(rows)], size)

    def choose(self, logits_BV: Tensor, position: int) -> Tensor:
        """Ids (B) for one position of each image."""
        if self.temperature == 0:
            return logits_BV.argmax(dim=-1)
        return self.choose_with(logits_BV, self.noise(len(logits_BV), position, logits_BV.shape[1]))

    def choose_with(self, logits_BV: Tensor, noise_BV: Tensor) -> Tensor:
        """Ids (B) for Gumbel numbers that were drawn already; temperature must be above 0, and the seed is not used."""
        return (self._kept(logits_BV) + to_device(noise_BV, logits_BV.device)).argmax(dim=-1)

    def probabilities(self, logits_BV: Tensor) -> Tensor:
        """The distribution from which ids are sampled: (B,V), fp32; temperature must be above 0."""
        return self._kept(logits_BV).softmax(dim=-1)

    def _kept(self, logits_BV: Tensor) -> Tensor:
        """Logits (B,V) divided by the temperature, minus infinity for ids that top-k or top-p rule out; fp32."""
        logits_BV = logits_BV.float() / self.temperature
        if 0 < self.top_k < logits_BV.shape[-1]:
            threshold_B1 = logits_BV.topk(self.top_k, dim=-1).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < threshold_B1, float("-inf"))
        if self.top_p < 1:
            sorted_BV, order_BV = logits_BV.softmax(dim=-1).sort(dim=-1, descending=True)
            # An id is kept if the more likely ones do not reach top_p.
            kept_BV = sorted_BV.cumsum(dim=-1) - sorted_BV < self.top_p
            kept_BV = torch.zeros_like(kept_BV).scatter(-1, order_BV, kept_BV)
            logits_BV = logits_BV.masked_fill(~kept_BV, float("-inf"))
        return logits_BV


def gumbel_noise(keys: Sequence[tuple[int, int]], size: int) -> Tensor:
    """Standard Gumbel numbers (B,size), fp32, for B pairs of a seed and a position."""
    words = [np.array([seed % 2**64, position], dtype=np.uint64) for seed, position in keys]
    bits = np.stack([np.random.Philox(key=word).random_raw(size) for word in words])
    uniform = torch.from_numpy(((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52).float()
    return -torch.log(-torch.log1p(-uniform))  # large numbers come from small uniform ones, where fp32 is finest


def choose_each(logits_BV: Tensor, wanted: Sequence[tuple[Sampling, int]]) -> Tensor:
    """The next id (B) of each row for its own sampling and position; rows with equal options are sampled together."""
    chosen_B = logits_BV.argmax(dim=-1)
    groups: dict[tuple[float, int, float], list[int]] = {}
    for place, (sampling, _) in enumerate(wanted):
        if sampling.temperature > 0:
            groups.setdefault((sampling.temperature, sampling.top_k, sampling.top_p), []).append(place)
    for places in groups.values():
        keys = [(wanted[place][0].seed, wanted[place][1]) for place in places]
        noise = gumbel_noise(keys, logits_BV.shape[1])
        chosen_B[places] = wanted[places[0]][0].choose_with(logits_BV[places], noise)
    return chosen_B
