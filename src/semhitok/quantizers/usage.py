"""Codebook usage: plain objects passed in by the caller, never state of a model.

Shapes: K codes (semantic codes), m sub-codes each, or up to m.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from semhitok.distributed import sum_over_ranks
from semhitok.transfer import to_device


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

    @classmethod
    def of(cls, counts: Tensor) -> CodeUsage:
        """A usage object from existing counts (size,)."""
        usage = cls(len(counts))
        usage.counts = counts
        return usage

    def update(self, ids: Tensor) -> None:
        """Counts ids of any shape.

        Raises:
            ValueError: an id on the CPU is outside [0, size). On a GPU, where the check would synchronise every step, the
                device raises its own error.
        """
        if ids.device.type == "cpu" and ids.numel():
            low, high = (int(bound) for bound in ids.aminmax())
            if low < 0 or high >= self.size:
                raise ValueError(f"Code ids span [{low}, {high}]; they must lie in [0, {self.size - 1}].")
        flat = ids.flatten().long()
        self.counts = to_device(self.counts, ids.device).index_add_(0, flat, torch.ones_like(flat))

    def all_reduce(self) -> CodeUsage:
        """The usage over all ranks as a new object; this one keeps counting its own rank. A collective."""
        return CodeUsage.of(sum_over_ranks(self.counts).clone())

    @property
    def usage(self) -> float:
        """Fraction of the codes hit at least once, in [0,1]."""
        return float((self.counts > 0).double().mean())

    @property
    def perplexity(self) -> float:
        """exp of the entropy of the hits: the equivalent number of equally used codes; 0 without hits."""
        share = self.counts[self.counts > 0].double()
        if len(share) == 0:
            return 0.0
        share = share / share.sum()
        return float(torch.exp(-(share * share.log()).sum()))

    def state_dict(self) -> dict[str, Tensor]:
        """The counts, for a checkpoint."""
        return {"counts": self.counts.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the counts.

        Raises:
            ValueError: the counts belong to a codebook of another size.
        """
        if len(state["counts"]) != self.size:
            raise ValueError(f"Usage counts are for {len(state['counts'])} codes; this codebook has {self.size}.")
        self.counts = state["counts"].clone()


def underused_subcodebooks(counts_Km: Tensor, sizes_K: Tensor | None = None) -> int:
    """The number of semantic codes that occur but use fewer than half of their sub-codes.

    Args:
        counts_Km: (K,m) hits, 0 for sub-codes that a smaller sub-codebook does not have.
        sizes_K: (K,) number of sub-codes of each; m by default.
    """
    return int(_underused(counts_Km, sizes_K).sum())


@dataclass(frozen=True)
class FrequencyBand:
    """Usage of the sub-codebooks of semantic codes of similar frequency.

    Attributes:
        codes: semantic codes in the band, all of them hit.
        fewest, most: hits of its rarest and of its most frequent code.
        share_of_hits: fraction of all patches, in [0,1].
        used: mean fraction of a semantic code's sub-codes that are hit, in [0,1].
        usable: the same if sub-codes were chosen uniformly: the mean of 1 - (1 - 1/m_k)^hits. Rare codes cannot use all
            of their sub-codes, whatever the tokenizer.
        underused: semantic codes with fewer than half of their sub-codes hit.
    """

    codes: int
    fewest: int
    most: int
    share_of_hits: float
    used: float
    usable: float
    underused: int


def usage_by_frequency(counts_Km: Tensor, sizes_K: Tensor | None = None, *, bands: int = 5) -> list[FrequencyBand]:
    """Usage of sub-codebooks by frequency of their semantic code, rarest first; codes without hits are omitted.

    Args:
        counts_Km, sizes_K: as in ``underused_subcodebooks``.
        bands: number of bands, with equal numbers of semantic codes up to one; fewer if there are fewer codes.
    """
    size_K = torch.full_like(counts_Km[:, 0], counts_Km.shape[1]) if sizes_K is None else sizes_K.to(counts_Km.device)
    hits_K, underused_K = counts_Km.sum(1), _underused(counts_Km, sizes_K)
    used_K = (counts_Km > 0).sum(1) / size_K
    usable_K = 1 - (1 - 1 / size_K.double()) ** hits_K
    order = hits_K.argsort(stable=True)
    order = order[hits_K[order] > 0]
    found = []
    for codes in order.tensor_split(min(bands, max(len(order), 1))):
        if len(codes):
            found.append(
                FrequencyBand(
                    codes=len(codes),
                    fewest=int(hits_K[codes[0]]),
                    most=int(hits_K[codes[-1]]),
                    share_of_hits=float(hits_K[codes].sum() / hits_K.sum()),
                    used=float(used_K[codes].double().mean()),
                    usable=float(usable_K[codes].mean()),
                    underused=int(underused_K[codes].sum()),
                )
            )
    return found


def _underused(counts_Km: Tensor, sizes_K: Tensor | None) -> Tensor:
    used_K = (counts_Km > 0).sum(1)
    half_K = counts_Km.shape[1] / 2 if sizes_K is None else sizes_K.to(counts_Km.device) / 2
    return (used_K > 0) & (used_K < half_K)
