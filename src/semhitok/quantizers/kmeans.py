"""k-means for codebook initialisation, and the assignment statistics that it shares with the EMA codebook.

It uses chunked lookup and ``index_add``, and is deterministic on the CPU for a given seed.

Shapes: N vectors, K clusters, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from semhitok.distributed import copy_from_first_rank, sum_over_ranks
from semhitok.quantizers.dead_codes import keyed_generator, random_order
from semhitok.quantizers.lookup import nearest_code

# Noise on copies that fill a codebook larger than its sample, as a fraction of the sample's standard deviation.
FILL_SPREAD = 0.1


@dataclass(frozen=True)
class Assignments:
    """Counts and sums of assigned vectors; add those of micro-batches before one update.

    They are fp64, although the codebook is fp32, so that sums over micro-batches, over ranks and over one large batch
    give the same fp32 result, and the run-to-run noise of atomic additions on GPUs is rounded away.

    Attributes:
        counts_K: (K,) number of vectors per code.
        sums_KD: (K,D) sum of the vectors per code.
    """

    counts_K: Tensor
    sums_KD: Tensor

    def __add__(self, other: Assignments) -> Assignments:
        return Assignments(self.counts_K + other.counts_K, self.sums_KD + other.sums_KD)

    def over_ranks(self) -> Assignments:
        """Statistics of the global batch. A collective."""
        # Counts are sent as one more channel, so that a single collective suffices.
        total_KD = sum_over_ranks(torch.cat([self.counts_K[:, None], self.sums_KD], dim=1))
        return Assignments(total_KD[:, 0], total_KD[:, 1:])


@torch.no_grad()
def assign(z_ND: Tensor, ids_N: Tensor, size: int) -> Assignments:
    """Counts and sums of the vectors z_ND (N,D) per code, given their ids (N,) in [0,size)."""
    z_ND = z_ND.double()
    counts_K = z_ND.new_zeros(size).index_add_(0, ids_N, z_ND.new_ones(len(z_ND)))
    return Assignments(counts_K, z_ND.new_zeros(size, z_ND.shape[1]).index_add_(0, ids_N, z_ND))


@torch.no_grad()
def kmeans(z_ND: Tensor, clusters: int, *, iterations: int = 10, seed: int = 0, spherical: bool = False) -> Tensor:
    """Lloyd's algorithm from random samples; empty clusters move to the worst-represented vectors.

    With fewer vectors than clusters, every vector becomes a centre, and the rest are noisy copies of them.

    Args:
        z_ND: (N,D) vectors, N >= 1; every rank must pass the same (the gathered batch).
        clusters: number of centres K.
        spherical: normalise vectors and centres, for codebooks that are compared by cosine.

    Returns:
        (K,D) fp32 centres.

    Raises:
        ValueError: if there is no vector.
    """
    if len(z_ND) == 0:
        raise ValueError(f"k-means with {clusters} clusters got no vectors; it needs at least one.")
    z_ND = F.normalize(z_ND.float(), dim=-1) if spherical else z_ND.float()
    centres_KD = _random_centres(z_ND, clusters, keyed_generator(seed))
    for _ in range(iterations):
        if spherical:
            centres_KD = F.normalize(centres_KD, dim=-1)
        ids_N = nearest_code(z_ND, centres_KD)
        assigned = assign(z_ND, ids_N, clusters)
        empty_K = assigned.counts_K == 0
        means_KD = (assigned.sums_KD / assigned.counts_K.clamp_min(1)[:, None]).float()
        errors_N = (z_ND - centres_KD[ids_N]).square().sum(-1)
        centres_KD = torch.where(empty_K[:, None], centres_KD, means_KD)
        _move_empty(centres_KD, empty_K, z_ND, errors_N)
    return F.normalize(centres_KD, dim=-1) if spherical else centres_KD


def shared_kmeans(
    z_ND: Tensor, clusters: int, *, iterations: int = 10, seed: int = 0, spherical: bool = False
) -> Tensor:
    """``kmeans`` of the gathered batch, bit-identical on all ranks, even on different devices. A collective."""
    centres_KD = kmeans(z_ND, clusters, iterations=iterations, seed=seed, spherical=spherical)
    copy_from_first_rank(centres_KD)
    return centres_KD


def _random_centres(z_ND: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    order = random_order(len(z_ND), generator, z_ND.device)
    if len(order) >= clusters:
        return z_ND[order[:clusters]].clone()
    copies = order[torch.arange(clusters, device=order.device) % len(order)]
    centres_KD = z_ND[copies]
    noise_KD = torch.randn(clusters, z_ND.shape[1], generator=generator, dtype=torch.float32).to(z_ND.device)
    noise_KD[: len(order)] = 0
    return centres_KD + FILL_SPREAD * z_ND.std(dim=0, correction=0) * noise_KD


def _move_empty(centres_KD: Tensor, empty_K: Tensor, z_ND: Tensor, errors_N: Tensor) -> None:
    """Move empty clusters to the vectors with the largest errors, worst first, skipping exactly represented ones."""
    worst = errors_N.argsort(descending=True, stable=True)
    worst = worst[errors_N[worst] > 0]
    empty = empty_K.nonzero().squeeze(1)
    moved = min(len(empty), len(worst))
    centres_KD[empty[:moved]] = z_ND[worst[:moved]]
