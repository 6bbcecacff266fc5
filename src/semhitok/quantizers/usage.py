"""How much of a codebook is used: plain objects that are handed in, never state of a model.

Shapes: K codes (semantic codes), m sub-codes each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from semhitok.quantizers.gather import sum_over_ranks


class CodeUsage:
    """Counts how often each code is hit.

    Args:
        size: number of codes.

    Attributes:
        counts: (size,) int64 hits, on the device of the ids counted last.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.counts = torch.zeros(size, dtype=torch.int64)

    def update(self, ids: Tensor) -> None:
        """Counts ids of any shape.

        Raises:
            ValueError: if an id on the CPU lies outside [0, size); on a GPU, where the check would make every step
                wait for the device, the device itself stops.
        """
        if ids.device.type == "cpu" and ids.numel():
            low, high = (int(bound) for bound in ids.aminmax())
            if low < 0 or high >= self.size:
                raise ValueError(f"Code ids span [{low}, {high}]; they must lie in [0, {self.size - 1}].")
        flat = ids.flatten().long()
        self.counts = self.counts.to(ids.device).index_add_(0, flat, torch.ones_like(flat))

    def merge(self, other: CodeUsage) -> None:
        """Adds another object's counts to these."""
        self.counts += other.counts.to(self.counts.device)

    def all_reduce(self) -> CodeUsage:
        """The usage over all ranks, as a new object; this one goes on counting its own rank. A collective."""
        total = CodeUsage(self.size)
        total.counts = sum_over_ranks(self.counts).clone()
        return total

    @property
    def usage(self) -> float:
        """Share of the codes hit at least once, in [0,1]."""
        return float((self.counts > 0).double().mean())

    @property
    def perplexity(self) -> float:
        """exp of the entropy of the hits: the number of equally used codes that would carry as much; 0 if no hits."""
        share = self.counts[self.counts > 0].double()
        if len(share) == 0:
            return 0.0
        share = share / share.sum()
        return float(torch.exp(-(share * share.log()).sum()))

    @property
    def normalized_perplexity(self) -> float:
        """Perplexity as a share of the codebook size, in [0,1]."""
        return self.perplexity / self.size

    def state_dict(self) -> dict[str, Tensor]:
        """The counts, for a checkpoint."""
        return {"counts": self.counts.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the counts.

        Raises:
            ValueError: if they belong to a codebook of another size.
        """
        if len(state["counts"]) != self.size:
            raise ValueError(f"Usage counts are for {len(state['counts'])} codes; this codebook has {self.size}.")
        self.counts = state["counts"].clone()


def underused_subcodebooks(counts_Km: Tensor) -> int:
    """How many semantic codes that occur at all use fewer than half of their m sub-codes; counts_Km (K,m) hits."""
    used_K = (counts_Km > 0).sum(1)
    return int(((used_K > 0) & (used_K < counts_Km.shape[1] / 2)).sum())
