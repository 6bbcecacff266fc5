"""Semantic-guided hierarchical codebook, SGHC (paper section 3.2, eq. 5).

Every semantic code k owns a small pixel sub-codebook of m codes. A patch with semantic code k chooses among these m
only, by cosine; together they are one token with id k*m + j.

Shapes: B images, N tokens (elsewhere: vectors), K semantic codes, m sub-codes each, D channels (the paper's d_p).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from semhitok.quantizers.codebook import Float32Module, straight_through
from semhitok.quantizers.flat import codebook_losses
from semhitok.quantizers.gather import copy_from_first_rank, gather_in_sample_order
from semhitok.quantizers.grouped import grouped_kmeans, members, nearest_in_group, replace_slots
from semhitok.quantizers.revival import keyed_generator, random_order
from semhitok.types import Quantized


class HierarchicalQuantizer(Float32Module):
    """K sub-codebooks of m l2-normalised pixel codes, chosen by the semantic code.

    Args:
        semantic_codebook_size: K.
        subcodebook_size: m; 12 or 8 in the paper (its text and tables disagree).
        dim: D; the paper does not state it.
    """

    def __init__(self, semantic_codebook_size: int, subcodebook_size: int, dim: int) -> None:
        super().__init__()
        self.codebook_KmD = nn.Parameter(
            torch.empty(semantic_codebook_size, subcodebook_size, dim, dtype=torch.float32)
        )
        self.reset_parameters()

    @property
    def subcodebook_size(self) -> int:
        """m."""
        return self.codebook_KmD.shape[1]

    def reset_parameters(self) -> None:
        """Directions uniform on the sphere, unit expected length; meant to be replaced by ``initialise``."""
        nn.init.normal_(self.codebook_KmD, std=self.codebook_KmD.shape[2] ** -0.5)

    def forward(self, z_BND: Tensor, semantic_ids_BN: Tensor) -> Quantized:
        """The best sub-code of each patch within the sub-codebook of its semantic code.

        Args:
            z_BND: (B,N,D) pixel features, any float dtype; l2-normalised here.
            semantic_ids_BN: (B,N) int64 in [0,K).

        Returns:
            codes (B,N,D) unit vectors in the dtype of ``z_BND``, straight-through to the normalised features;
            ids (B,N) the inner ids j in [0,m), see ``flatten_ids``; losses: ``codebook`` and ``commitment``.
        """
        unit_BND = F.normalize(z_BND.float(), dim=-1)
        ids_N = nearest_in_group(
            rearrange(unit_BND, "b n d -> (b n) d"), self.codebook_KmD, rearrange(semantic_ids_BN, "b n -> (b n)")
        )
        ids_BN = rearrange(ids_N, "(b n) -> b n", b=len(z_BND))
        codes_BND = self.lookup(semantic_ids_BN, ids_BN)
        codes = straight_through(unit_BND, codes_BND).to(z_BND.dtype)
        return Quantized(codes, ids_BN, codebook_losses(unit_BND, codes_BND))

    def lookup(self, semantic_ids: Tensor, pixel_ids: Tensor) -> Tensor:
        """Unit-length codes of (semantic id, inner id), any equal shapes (...) -> (...,D), fp32, with gradients."""
        table = rearrange(self.codebook_KmD, "k m d -> (k m) d")
        return F.normalize(F.embedding(self.flatten_ids(semantic_ids, pixel_ids), table), dim=-1)

    def flatten_ids(self, semantic_ids: Tensor, pixel_ids: Tensor) -> Tensor:
        """Joint ids k*m + j in [0, K*m). Ranges are the caller's to check."""
        return semantic_ids * self.subcodebook_size + pixel_ids

    def split_ids(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Semantic ids k and inner ids j of joint ids. Ranges are the caller's to check."""
        return ids // self.subcodebook_size, ids % self.subcodebook_size

    @torch.no_grad()
    def initialise(self, z_ND: Tensor, semantic_ids_N: Tensor, *, seed: int, iterations: int = 10) -> None:
        """k-means inside every semantic code, over the gathered global batch; independent of the number of ranks.

        A collective. ``grouped_kmeans`` says what happens to semantic codes with fewer than m patches.

        Args:
            z_ND: (N,D) this rank's pixel features in sample order.
            semantic_ids_N: (N,) int64 in [0,K).
        """
        codebook_KmD = grouped_kmeans(
            gather_in_sample_order(z_ND),
            gather_in_sample_order(semantic_ids_N),
            *self.codebook_KmD.shape[:2],
            iterations=iterations,
            seed=seed,
        )
        copy_from_first_rank(codebook_KmD)
        self.codebook_KmD.copy_(codebook_KmD)

    @torch.no_grad()
    def revive(
        self, z_ND: Tensor, semantic_ids_N: Tensor, counts_Km: Tensor, *, threshold: float, seed: int, step: int
    ) -> int:
        """Re-seeds sub-codes with too few hits by random patches of the same semantic code.

        A collective; independent of the number of ranks. A semantic code with fewer than threshold * m hits in all is
        too rare to judge its sub-codes and is left alone.

        Args:
            z_ND: (N,D) this rank's pixel features in sample order.
            semantic_ids_N: (N,) int64 in [0,K).
            counts_Km: (K,m) hits since the caller started counting, summed over the ranks.
            threshold: hits below which a sub-code is re-seeded.

        Returns:
            How many sub-codes were re-seeded: at most one per patch.
        """
        z_ND = F.normalize(gather_in_sample_order(z_ND).float(), dim=-1)
        semantic_ids_N = gather_in_sample_order(semantic_ids_N)
        counts_Km = counts_Km.to(z_ND.device)
        groups, size = counts_Km.shape
        known_K = counts_Km.sum(1) >= threshold * size
        dead_Km = (counts_Km < threshold) & known_K[:, None]
        order_N = random_order(len(z_ND), keyed_generator(seed, step), z_ND.device)
        members_Km = members(semantic_ids_N, order_N, groups, size)
        return int(replace_slots(self.codebook_KmD, dead_Km, z_ND, members_Km).sum())
