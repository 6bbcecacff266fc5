"""Which vectors fell on which code: counts and sums, the sufficient statistics of k-means and of the EMA codebook.

Shapes: N vectors, K codes, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from semhitok.distributed import sum_over_ranks


@dataclass(frozen=True)
class Assignments:
    """Statistics of some vectors; add those of micro-batches before one update.

    fp64, although the codebook is fp32: sums over micro-batches, over ranks and over one big batch then agree to the
    last bit of the fp32 result, and atomic additions on a GPU lose their run-to-run noise in the rounding.

    Attributes:
        counts_K: (K,) number of vectors per code.
        sums_KD: (K,D) sum of the vectors per code.
    """

    counts_K: Tensor
    sums_KD: Tensor

    def __add__(self, other: Assignments) -> Assignments:
        return Assignments(self.counts_K + other.counts_K, self.sums_KD + other.sums_KD)

    def over_ranks(self) -> Assignments:
        """Statistics of the global batch. A collective (a single one: counts travel as one more channel)."""
        total_KD = sum_over_ranks(torch.cat([self.counts_K[:, None], self.sums_KD], dim=1))
        return Assignments(total_KD[:, 0], total_KD[:, 1:])


@torch.no_grad()
def assign(z_ND: Tensor, ids_N: Tensor, size: int) -> Assignments:
    """Counts and sums of the vectors z_ND (N,D) per code, given their ids (N,) in [0,size)."""
    z_ND = z_ND.double()
    counts_K = z_ND.new_zeros(size).index_add_(0, ids_N, z_ND.new_ones(len(z_ND)))
    return Assignments(counts_K, z_ND.new_zeros(size, z_ND.shape[1]).index_add_(0, ids_N, z_ND))
