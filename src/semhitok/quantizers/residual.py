"""Residual quantization, RQ (Lee et al. 2022, arXiv 2203.01941, section 3.1): what UniTok compares its MCQ with.

A code, then the code of what is left, and so on: C codes from one codebook are summed.

Shapes: B images, N tokens (elsewhere: vectors), C codes per token, K codes, D channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from semhitok.distributed import copy_from_first_rank, gather_in_sample_order
from semhitok.quantizers.codebook import Float32Module, straight_through
from semhitok.quantizers.dead_codes import replace_dead
from semhitok.quantizers.kmeans import kmeans
from semhitok.quantizers.lookup import nearest_code
from semhitok.types import Quantized


class ResidualQuantizer(Float32Module):
    """One Euclidean codebook of K codes, shared by all C depths as in RQ-VAE, trained by the codebook loss.

    Args:
        depth: C, codes per token.
        codebook_size: K.
        dim: D.
    """

    def __init__(self, depth: int, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.depth = depth
        self.codebook_KD = nn.Parameter(torch.empty(codebook_size, dim, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in [-1/K, 1/K]; meant to be replaced by ``initialise``."""
        bound = 1 / len(self.codebook_KD)
        nn.init.uniform_(self.codebook_KD, -bound, bound)

    def forward(self, z_BND: Tensor) -> Quantized:
        """The nearest code of what is left, C times.

        Args:
            z_BND: (B,N,D), any float dtype; compared in fp32.

        Returns:
            codes (B,N,D), sums of C codes, in the dtype of ``z_BND``, straight-through; ids (B,N,C) in [0,K); losses
            ``codebook`` and ``commitment``: means over the distances of the feature to its partial sums (eq. 9 there),
            unweighted.
        """
        z_MD = rearrange(z_BND.float(), "b n d -> (b n) d")
        left_MD, sum_MD = z_MD.detach(), torch.zeros_like(z_MD)
        ids, codebook, commitment = [], [], []
        for _ in range(self.depth):
            ids.append(nearest_code(left_MD, self.codebook_KD))
            sum_MD = sum_MD + F.embedding(ids[-1], self.codebook_KD)
            left_MD = z_MD.detach() - sum_MD.detach()
            codebook.append(F.mse_loss(sum_MD, z_MD.detach()))
            commitment.append(F.mse_loss(z_MD, sum_MD.detach()))
        ids_BNC = rearrange(torch.stack(ids), "c (b n) -> b n c", b=len(z_BND))
        codes = straight_through(z_BND, self.lookup(ids_BNC))
        losses = {"codebook": torch.stack(codebook).mean(), "commitment": torch.stack(commitment).mean()}
        return Quantized(codes, ids_BNC, losses)

    def normalise(self, z_BND: Tensor) -> Tensor:
        """The features as they are compared, fp32."""
        return z_BND.float()

    def lookup(self, ids_BNC: Tensor) -> Tensor:
        """Sums of the codes of ids (B,N,C) -> (B,N,D), fp32, added in the order of the depths."""
        total = torch.zeros((), device=ids_BNC.device)
        for ids_BN in ids_BNC.unbind(-1):
            total = total + F.embedding(ids_BN, self.codebook_KD)
        return total

    @torch.no_grad()
    def initialise(self, z_ND: Tensor, *, seed: int, iterations: int = 10) -> None:
        """k-means over the vectors and what the first centres leave of them, on the gathered global batch (a collective).

        The codebook serves all depths, so it needs codes of the size of features and of the size of remainders: half of
        the codes are centres of the one, half of the other.
        """
        z_ND = gather_in_sample_order(z_ND).float()
        first = (len(self.codebook_KD) + 1) // 2
        coarse_KD = kmeans(z_ND, first, iterations=iterations, seed=seed)
        copy_from_first_rank(coarse_KD)
        self.codebook_KD[:first] = coarse_KD
        if first < len(self.codebook_KD):
            left_ND = z_ND - coarse_KD[nearest_code(z_ND, coarse_KD)]
            fine_KD = kmeans(left_ND, len(self.codebook_KD) - first, iterations=iterations, seed=seed + 1)
            copy_from_first_rank(fine_KD)
            self.codebook_KD[first:] = fine_KD

    @torch.no_grad()
    def revive(self, z_ND: Tensor, dead_CK: Tensor, *, seed: int, step: int) -> int:
        """Replaces codes that no depth has used by what random vectors of the global batch have left over.

        A collective; independent of the number of ranks. ``dead_CK`` (C,K) bool says which codes each depth left unused.
        Returns how many codes were replaced.
        """
        z_ND = gather_in_sample_order(z_ND).float()
        left_ND = z_ND - self.codebook_KD[nearest_code(z_ND, self.codebook_KD)]
        return len(replace_dead(self.codebook_KD, left_ND, dead_CK.all(dim=0), seed=seed, step=step))
