"""Residual quantization, RQ (Lee et al. 2022, arXiv 2203.01941, section 3.1), with which UniTok compares its MCQ.

Each code quantizes the residual of the previous ones; the C codes, all from one codebook, are summed.

Shapes: B images, N tokens (elsewhere: vectors), C codes per token, K codes, D channels.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from semhitok.distributed import gather_in_sample_order
from semhitok.quantizers.base import Float32Module, Quantizer, straight_through
from semhitok.quantizers.dead_codes import replace_dead
from semhitok.quantizers.kmeans import shared_kmeans
from semhitok.quantizers.lookup import nearest_code
from semhitok.types import Quantized


class ResidualQuantizer(Float32Module, Quantizer):
    """One Euclidean codebook of K codes, shared by all C depths as in RQ-VAE, trained by the codebook loss.

    Args:
        depth: C, codes per token.
        codebook_size: K.
        dim: D.
    """

    codebooks: ClassVar[tuple[str, ...]] = ("codebook_KD",)

    def __init__(self, depth: int, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.depth = depth
        self.codebook_KD = nn.Parameter(torch.empty(codebook_size, dim, dtype=torch.float32))
        self.reset_parameters()

    @property
    def counts_shape(self) -> tuple[int, ...]:
        """(C,K): each depth counts its own hits."""
        return (self.depth, len(self.codebook_KD))

    def reset_parameters(self) -> None:
        """Set codes uniform in [-1/K, 1/K]; ``initialise`` replaces them."""
        bound = 1 / len(self.codebook_KD)
        nn.init.uniform_(self.codebook_KD, -bound, bound)

    def forward(self, z_BND: Tensor) -> Quantized:
        """Quantize the remaining residual to the nearest code, C times.

        Args:
            z_BND: (B,N,D), any float dtype; compared in fp32.

        Returns:
            codes (B,N,D), sums of C codes, in the dtype of ``z_BND``, straight-through; ids (B,N,C) in [0,K); losses
            ``codebook`` and ``commitment``: unweighted means of the distances between the feature and its partial sums
            (eq. 9 there).
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
        ids_BNC = rearrange(torch.stack(ids), "c (b n) -> b n c", b=z_BND.shape[0])
        codes = straight_through(z_BND, self.lookup(ids_BNC))
        losses = {"codebook": torch.stack(codebook).mean(), "commitment": torch.stack(commitment).mean()}
        return Quantized(codes, ids_BNC, losses)

    def normalise(self, z_BND: Tensor) -> Tensor:
        """The features in fp32, as they are compared with codes."""
        return z_BND.float()

    def lookup(self, ids_BNC: Tensor) -> Tensor:
        """Sums of the codes of ids (B,N,C) -> (B,N,D), fp32, added in order of depth."""
        total = torch.zeros((), device=ids_BNC.device)
        for ids_BN in ids_BNC.unbind(-1):
            total = total + F.embedding(ids_BN, self.codebook_KD)
        return total

    @torch.no_grad()
    def initialise(self, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, iterations: int = 10) -> None:
        """k-means of the vectors and of their residuals; see ``Quantizer.initialise``.

        The codebook serves all depths, so it needs codes of the magnitude of features and of residuals: half of the codes
        are centres of the features, half of their residuals to these.
        """
        z_ND = gather_in_sample_order(z_ND).float()
        first = (len(self.codebook_KD) + 1) // 2
        coarse_KD = shared_kmeans(z_ND, first, iterations=iterations, seed=seed)
        self.codebook_KD[:first] = coarse_KD
        if first < len(self.codebook_KD):
            left_ND = z_ND - coarse_KD[nearest_code(z_ND, coarse_KD)]
            rest = len(self.codebook_KD) - first
            self.codebook_KD[first:] = shared_kmeans(left_ND, rest, iterations=iterations, seed=seed + 1)

    def dead_codes(self, counts: Tensor, below: float) -> Tensor:
        """(K,) codes with fewer hits than ``below`` times the mean at every depth; see ``Quantizer.dead_codes``."""
        return super().dead_codes(counts, below).all(dim=0)

    @torch.no_grad()
    def replace_dead_codes(
        self, dead: Tensor, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, step: int
    ) -> int:
        """See ``Quantizer.replace_dead_codes``; new codes are residuals of random vectors to their nearest codes."""
        z_ND = gather_in_sample_order(z_ND).float()
        left_ND = z_ND - self.codebook_KD[nearest_code(z_ND, self.codebook_KD)]
        return len(replace_dead(self.codebook_KD, left_ND, dead, seed=seed, step=step))
