"""Nearest code by Euclidean distance or cosine, without materialising the N x K table.

The table is computed in tiles that fit the cache, each by one fused matrix product, with a running minimum per vector.
Matrix products run in true fp32 regardless of the caller's autocast and matmul precision.

Shapes: N vectors, K codes, D channels; n and k are the sides of one tile.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semhitok.nn.exact import exact_fp32

# 512 x 1,024 fp32 scores are 2 MiB, within the L2 cache of two cores. Accelerators prefer few large launches instead.
CPU_TILE = (512, 1024)
ACCELERATOR_TILE = (8192, 8192)


@torch.no_grad()
def nearest_code(z_ND: Tensor, codebook_KD: Tensor, *, chunk: tuple[int, int] | None = None) -> Tensor:
    """Index of the code with the smallest Euclidean distance; the lowest index wins a tie.

    Args:
        z_ND: (N,D) vectors, any float dtype; compared in fp32.
        codebook_KD: (K,D) codes.
        chunk: vectors and codes compared at a time; by default chosen for the device.

    Returns:
        (N,) int64 ids in [0,K).
    """
    codebook_KD = codebook_KD.float()
    # |z - c|^2 = |z|^2 - 2zc + |c|^2, and |z|^2 does not affect the argmin.
    return _smallest(z_ND.float(), codebook_KD, codebook_KD.square().sum(-1), -2.0, chunk)


@torch.no_grad()
def nearest_cosine(z_ND: Tensor, codebook_KD: Tensor, *, chunk: tuple[int, int] | None = None) -> Tensor:
    """Index of the code with the largest cosine similarity; neither side needs to be normalised.

    Arguments and result as in ``nearest_code``.
    """
    codes_KD = F.normalize(codebook_KD.float(), dim=-1)
    return _smallest(z_ND.float(), codes_KD, codes_KD.new_zeros(len(codes_KD)), -1.0, chunk)


@torch.no_grad()
def largest_product(z_ND: Tensor, codebook_KD: Tensor, *, chunk: tuple[int, int] | None = None) -> Tensor:
    """Index of the code with the largest inner product.

    Arguments and result as in ``nearest_code``.
    """
    codebook_KD = codebook_KD.float()
    return _smallest(z_ND.float(), codebook_KD, codebook_KD.new_zeros(len(codebook_KD)), -1.0, chunk)


def _smallest(z_ND: Tensor, codes_KD: Tensor, bias_K: Tensor, scale: float, chunk: tuple[int, int] | None) -> Tensor:
    """argmin over k of ``scale * z @ c_k + bias_k`` for every vector z."""
    if torch.compiler.is_exporting():  # tiles of a number of vectors that is not known would be a loop without end
        return torch.addmm(bias_K, z_ND, codes_KD.T, alpha=scale).argmin(1)
    count, size = len(z_ND), len(codes_KD)
    tile_n, tile_k = chunk or (CPU_TILE if z_ND.device.type == "cpu" else ACCELERATOR_TILE)
    tile_n, tile_k = min(tile_n, count), min(tile_k, size)
    ids_N = torch.zeros(count, dtype=torch.int64, device=z_ND.device)
    if count == 0:
        return ids_N
    scores_nk = z_ND.new_empty(tile_n, tile_k)
    smallest_n = z_ND.new_empty(tile_n)
    with exact_fp32(z_ND.device):
        for row in range(0, count, tile_n):
            # The last tile overlaps the one before it, so that every tile has the same number of rows: a vector's id must
            # not depend on a matmul kernel chosen for a remainder.
            rows = slice(min(row, count - tile_n), min(row, count - tile_n) + tile_n)
            best_n = torch.full_like(smallest_n, torch.inf)
            for column in range(0, size, tile_k):
                codes_kD = codes_KD[column : column + tile_k]
                tile_nk = scores_nk[:, : len(codes_kD)]
                torch.addmm(bias_K[column : column + tile_k], z_ND[rows], codes_kD.T, alpha=scale, out=tile_nk)
                torch.amin(tile_nk, dim=1, out=smallest_n)
                if z_ND.device.type == "cpu":
                    # Finding the position costs several times the minimum itself, so it is done only for improved rows.
                    better = (smallest_n < best_n).nonzero().squeeze(1)
                    ids_N[better + rows.start] = tile_nk[better].argmin(1) + column
                    best_n[better] = smallest_n[better]
                else:  # the number of improved rows would make the host wait for the device
                    ids_N[rows] = torch.where(smallest_n < best_n, tile_nk.argmin(1) + column, ids_N[rows])
                    torch.minimum(best_n, smallest_n, out=best_n)
    return ids_N
