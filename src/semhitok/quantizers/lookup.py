"""Nearest code by Euclidean distance or cosine, without materialising the N x K table.

The table is computed in tiles that fit the cache, each by one fused matrix product, with a running minimum per vector.
Matrix products run in true fp32 regardless of the caller's autocast and matmul precision.

Shapes: C codebooks, N vectors, K codes, D channels; n and k are the sides of one tile.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from semhitok.nn.exact import exact_fp32

# 512 x 1,024 fp32 scores are 2 MiB, within the L2 cache of two cores. Accelerators prefer few large launches instead: at most
# 8,192 x 8,192 scores of all codebooks together.
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
def nearest_cosine_of_each(z_CND: Tensor, codebooks_CKD: Tensor) -> Tensor:
    """As ``nearest_cosine`` for C sets of vectors (C,N,D) and a codebook for each (C,K,D) -> (C,N); one lookup on accelerators."""
    if z_CND.device.type == "cpu":  # tiles of one codebook fit the cache
        return torch.stack([nearest_cosine(*pair) for pair in zip(z_CND, codebooks_CKD, strict=True)])
    codes_CKD = F.normalize(codebooks_CKD.float(), dim=-1)
    return smallest_in_batches(z_CND.float(), codes_CKD, codes_CKD.new_zeros(codes_CKD.shape[:2]), -1.0)


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
    if z_ND.device.type != "cpu":
        return smallest_in_batches(z_ND[None], codes_KD[None], bias_K[None], scale, chunk=chunk)[0]
    count, size = len(z_ND), len(codes_KD)
    tile_n, tile_k = chunk or CPU_TILE
    tile_n, tile_k = min(tile_n, count), min(tile_k, size)
    ids_N = torch.zeros(count, dtype=torch.int64)
    if count == 0:
        return ids_N
    scores_nk = z_ND.new_empty(tile_n, tile_k)
    smallest_n = z_ND.new_empty(tile_n)
    with exact_fp32(z_ND.device):
        for rows in _rows(count, tile_n):
            best_n = torch.full_like(smallest_n, torch.inf)
            for column in range(0, size, tile_k):
                codes_kD = codes_KD[column : column + tile_k]
                tile_nk = scores_nk[:, : len(codes_kD)]
                torch.addmm(bias_K[column : column + tile_k], z_ND[rows], codes_kD.T, alpha=scale, out=tile_nk)
                torch.amin(tile_nk, dim=1, out=smallest_n)
                # Finding the position costs several times the minimum itself, so it is done only for improved rows.
                better = (smallest_n < best_n).nonzero().squeeze(1)
                ids_N[better + rows.start] = tile_nk[better].argmin(1) + column
                best_n[better] = smallest_n[better]
    return ids_N


def smallest_in_batches(
    z_CND: Tensor, codes_CKD: Tensor, bias_CK: Tensor, scale: float, *, chunk: tuple[int, int] | None = None
) -> Tensor:
    """As ``_smallest`` for C codebooks at once, without a step whose size the host must know: (C,N)."""
    books, count, _ = z_CND.shape
    size = codes_CKD.shape[1]
    tile_n, tile_k = chunk or (max(1, ACCELERATOR_TILE[0] // books), ACCELERATOR_TILE[1])
    if chunk is None and size < tile_k:  # fewer codes than a tile has room for
        tile_n = tile_n * tile_k // size
    tile_n, tile_k = min(tile_n, count), min(tile_k, size)
    ids_CN = torch.zeros(books, count, dtype=torch.int64, device=z_CND.device)
    with exact_fp32(z_CND.device):
        for rows in _rows(count, tile_n):
            best_Cn = None
            for column in range(0, size, tile_k):
                codes_CkD = codes_CKD[:, column : column + tile_k]
                bias_C1k = bias_CK[:, None, column : column + tile_k]
                scores_Cnk = torch.baddbmm(bias_C1k, z_CND[:, rows], codes_CkD.mT, alpha=scale)
                smallest_Cn, places_Cn = scores_Cnk.min(dim=2)
                if best_Cn is None:
                    best_Cn, ids_CN[:, rows] = smallest_Cn, places_Cn
                    continue
                ids_CN[:, rows] = torch.where(smallest_Cn < best_Cn, places_Cn + column, ids_CN[:, rows])
                best_Cn = torch.minimum(best_Cn, smallest_Cn)
    return ids_CN


def _rows(count: int, tile: int) -> Iterator[slice]:
    """Parts of ``count`` rows. The last one overlaps the one before it, so that every tile has the same number of rows: a
    vector's id must not depend on a matmul kernel chosen for a remainder."""
    for row in range(0, count, max(1, tile)):
        start = min(row, count - tile)
        yield slice(start, start + tile)
