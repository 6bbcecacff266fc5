"""Many small codebooks at once: lookup and k-means inside groups, vectorised over the groups.

A group is a semantic code, its members are the patches assigned to it, and its m codes form the sub-codebook. Vectors and
codes are compared by cosine.

Shapes: N vectors, K groups, m codes per group, D channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semhitok.quantizers.dead_codes import keyed_generator, random_order
from semhitok.quantizers.kmeans import assign
from semhitok.quantizers.lookup import nearest_cosine

# Vectors looked up at a time, which limits the gathered candidates to 8,192 x m x D floats.
LOOKUP_CHUNK = 8192
# Expected length of the noise added to a unit vector that is copied because its group has too few members.
FILL_NOISE = 0.1


@torch.no_grad()
def nearest_in_group(z_ND: Tensor, codebook_KmD: Tensor, groups_N: Tensor, exists_Km: Tensor | None = None) -> Tensor:
    """Inner id in [0,m) of the code with the largest cosine within the vector's own group, without comparing all K*m codes.

    It uses elementwise products: for few candidates of few channels they are as fast as a batched matmul, and exact fp32
    under any autocast or matmul precision. A single group needs no gathering and may be large.

    Args:
        z_ND: (N,D) vectors, any length.
        codebook_KmD: (K,m,D) codes, any length.
        groups_N: (N,) int64 in [0,K).
        exists_Km: (K,m) bool, False for codes that a smaller group does not have; by default all exist.
    """
    if len(codebook_KmD) == 1 and exists_Km is None:
        return nearest_cosine(z_ND, codebook_KmD[0])
    z_ND = z_ND.float()
    if torch.compiler.is_exporting():  # any number of vectors cannot be split into a fixed number of chunks
        return _nearest_candidate(z_ND, codebook_KmD, groups_N, exists_Km)
    chunks = zip(z_ND.split(LOOKUP_CHUNK), groups_N.split(LOOKUP_CHUNK), strict=True)
    return torch.cat([_nearest_candidate(z_nD, codebook_KmD, groups_n, exists_Km) for z_nD, groups_n in chunks])


def _nearest_candidate(z_nD: Tensor, codebook_KmD: Tensor, groups_n: Tensor, exists_Km: Tensor | None) -> Tensor:
    candidates_nmD = codebook_KmD[groups_n]
    products_nm = (candidates_nmD * z_nD[:, None]).sum(-1)
    # The length of z does not affect the argmax.
    cosines_nm = products_nm / candidates_nmD.norm(dim=-1).clamp_min(1e-12)
    if exists_Km is not None:
        cosines_nm = cosines_nm.masked_fill(~exists_Km[groups_n], -torch.inf)
    return cosines_nm.argmax(1)


def members(groups_N: Tensor, order_N: Tensor, groups: int, most: int) -> Tensor:
    """Up to ``most`` members of every group, in the order of ``order_N``.

    Args:
        groups_N: (N,) int64 group of each vector.
        order_N: (N,) permutation that sets the priority.

    Returns:
        (groups, most) int64 vector indices, -1 where a group has no more members.
    """
    by_group = order_N[groups_N[order_N].argsort(stable=True)]
    group_N = groups_N[by_group]
    counts_K = torch.bincount(groups_N, minlength=groups)
    rank_N = torch.arange(len(by_group), device=by_group.device) - (counts_K.cumsum(0) - counts_K)[group_N]
    table_Km = by_group.new_full((groups, most), -1)
    table_Km[group_N[rank_N < most], rank_N[rank_N < most]] = by_group[rank_N < most]
    return table_Km


def replace_slots(codebook_KmD: Tensor, replace_Km: Tensor, z_ND: Tensor, members_Km: Tensor) -> Tensor:
    """Overwrites marked codes in place by successive members of their group; returns (K,m) bool of the replaced ones."""
    turn_Km = (replace_Km.cumsum(1) - 1).clamp_min(0)
    member_Km = members_Km.gather(1, turn_Km)
    replaced_Km = replace_Km & (member_Km >= 0)
    codebook_KmD[replaced_Km] = z_ND[member_Km[replaced_Km]]
    return replaced_Km


@torch.no_grad()
def grouped_kmeans(
    z_ND: Tensor,
    groups_N: Tensor,
    groups: int,
    size: int,
    *,
    exists_Km: Tensor | None = None,
    iterations: int = 10,
    seed: int = 0,
) -> Tensor:
    """Spherical k-means with ``size`` centres in every group, or fewer if ``exists_Km`` is given.

    Centres start at random members; empty ones move to the group's worst-represented member. A group with fewer members
    than centres is filled with noisy copies of them; a group without members gets noisy copies of vectors from the whole
    batch, so that a semantic code that appears later finds plausible sub-codes.

    Args:
        z_ND: (N,D) vectors, N >= 1; normalised here.
        groups_N: (N,) int64 in [0,groups).
        exists_Km: (groups, size) bool, False for centres that a group does not have; each group has its first one.

    Returns:
        (groups, size, D) fp32 unit vectors; zeros for missing centres.

    Raises:
        ValueError: if there is no vector.
    """
    if len(z_ND) == 0:
        raise ValueError("k-means of the sub-codebooks got no vectors; it needs at least one.")
    z_ND = F.normalize(z_ND.float(), dim=-1)
    codebook_KmD = _random_centres(z_ND, groups_N, groups, size, keyed_generator(seed))
    for _ in range(iterations):
        ids_N = nearest_in_group(z_ND, codebook_KmD, groups_N, exists_Km)
        cosine_N = (z_ND * codebook_KmD[groups_N, ids_N]).sum(-1)
        assigned = assign(z_ND, groups_N * size + ids_N, groups * size)
        empty_Km = (assigned.counts_K == 0).view(groups, size)
        if exists_Km is not None:
            empty_Km &= exists_Km
        means_KmD = F.normalize(assigned.sums_KD, dim=-1).float().view(groups, size, -1)
        codebook_KmD = torch.where(empty_Km[..., None], codebook_KmD, means_KmD)
        worst_Km = members(groups_N, cosine_N.argsort(stable=True), groups, size)
        # A member that equals its code already (cosine 1 up to rounding) would only add a duplicate.
        worst_Km[cosine_N[worst_Km.clamp_min(0)] > 1 - 1e-6] = -1
        replace_slots(codebook_KmD, empty_Km, z_ND, worst_Km)
    return codebook_KmD if exists_Km is None else codebook_KmD * exists_Km[..., None]


def _random_centres(z_ND: Tensor, groups_N: Tensor, groups: int, size: int, generator: torch.Generator) -> Tensor:
    members_Km = members(groups_N, random_order(len(z_ND), generator, z_ND.device), groups, size)
    count_K = (members_Km >= 0).sum(1, keepdim=True)
    slot_m = torch.arange(size, device=z_ND.device)
    repeated_Km = members_Km.gather(1, slot_m % count_K.clamp_min(1))
    anywhere_Km = torch.randint(len(z_ND), (groups, size), generator=generator).to(z_ND.device)
    noise_KmD = torch.randn(groups, size, z_ND.shape[1], generator=generator, dtype=torch.float32).to(z_ND.device)
    noise_KmD *= (FILL_NOISE * z_ND.shape[1] ** -0.5) * (slot_m >= count_K)[..., None]
    centres_KmD = z_ND[torch.where(count_K > 0, repeated_Km, anywhere_Km)] + noise_KmD
    return F.normalize(centres_KmD, dim=-1)
