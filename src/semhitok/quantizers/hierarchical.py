"""Semantic-guided hierarchical codebook, SGHC (paper section 3.2, eq. 5).

Every semantic code k has a small pixel sub-codebook of m codes. A patch with semantic code k chooses code j among these m
by cosine; together they form one token with id k*m + j. Two options go beyond the paper: sub-codebooks of different sizes
(``layout``), and other rules for choosing the sub-codebook, as controls (``grouping``).

Shapes: B images, N tokens (elsewhere: vectors), K semantic codes, G sub-codebooks (G = K in the paper) of m codes each, or
of up to m, D channels (the paper's d_p).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from semhitok.distributed import copy_from_first_rank, gather_in_sample_order
from semhitok.quantizers.base import Float32Module, Quantizer, codebook_losses, straight_through
from semhitok.quantizers.dead_codes import keyed_generator, random_order
from semhitok.quantizers.grouped import grouped_kmeans, members, nearest_in_group, replace_slots
from semhitok.quantizers.grouping import Grouping, PixelCodebookKind, grouping_of
from semhitok.quantizers.layout import IdLayout
from semhitok.types import Quantized


class HierarchicalQuantizer(Float32Module, Quantizer):
    """Sub-codebooks of l2-normalised pixel codes, chosen by the semantic code.

    Args:
        semantic_codebook_size: K.
        subcodebook_size: m, which is 12 or 8 in the paper (text and tables disagree), or one size m_k per semantic code.
        dim: D; the paper does not state it.
        choice: rule that selects the sub-codebook; see ``grouping``.
        semantic_groups: the group of each semantic code, for the rule ``grouped``.

    Attributes:
        codebook_KmD: (G,m,D) fp32 parameter. If sub-codebooks differ in size, m is the largest, and smaller ones are padded
            with zeros that are neither used nor trained, so that one lookup serves all.

    Raises:
        ValueError: the number of sizes is not K, or sizes differ although ``choice`` is not "semantic".
    """

    codebooks: ClassVar[tuple[str, ...]] = ("codebook_KmD",)

    def __init__(
        self,
        semantic_codebook_size: int,
        subcodebook_size: int | Sequence[int],
        dim: int,
        *,
        choice: PixelCodebookKind = "semantic",
        semantic_groups: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.layout = IdLayout.of(semantic_codebook_size, subcodebook_size)
        if choice != "semantic" and not self.layout.is_uniform:
            raise ValueError(f"sub-codebooks of different sizes need the choice 'semantic', got {choice!r}")
        self.grouping: Grouping = grouping_of(choice, semantic_codebook_size, semantic_groups)
        shape = (self.grouping.groups, self.layout.largest, dim)
        self.codebook_KmD = nn.Parameter(torch.empty(shape, dtype=torch.float32))
        self.reset_parameters()

    @property
    def subcodebook_size(self) -> int:
        """m, the largest size."""
        return self.codebook_KmD.shape[1]

    @property
    def codes(self) -> int:
        """Pixel codes in all sub-codebooks together."""
        return self.codebook_KmD.shape[:2].numel() if self.layout.is_uniform else self.layout.vocab_size

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set codes with uniform directions and unit expected length; ``initialise`` replaces them."""
        nn.init.normal_(self.codebook_KmD, std=self.codebook_KmD.shape[2] ** -0.5)
        exists_Km = self._exists()
        if exists_Km is not None:
            self.codebook_KmD.mul_(exists_Km[..., None])

    def forward(self, z_BND: Tensor, semantic_ids_BN: Tensor) -> Quantized:
        """Quantize each patch to the best pixel code of its sub-codebook.

        Args:
            z_BND: (B,N,D) pixel features, any float dtype; l2-normalised here.
            semantic_ids_BN: (B,N) int64 in [0,K); N in the order of the sequence.

        Returns:
            codes (B,N,D) unit vectors in the dtype of ``z_BND``, straight-through to the normalised features;
            ids (B,N) the inner ids j in [0,m), see ``flatten_ids``; losses: ``codebook`` and ``commitment``.
        """
        unit_BND = F.normalize(z_BND.float(), dim=-1)
        ids_N = nearest_in_group(
            rearrange(unit_BND, "b n d -> (b n) d"),
            self.codebook_KmD,
            rearrange(self.grouping(semantic_ids_BN), "b n -> (b n)"),
            self._exists(),
        )
        ids_BN = rearrange(ids_N, "(b n) -> b n", b=z_BND.shape[0])
        codes_BND = self.lookup(semantic_ids_BN, ids_BN)
        codes = straight_through(unit_BND, codes_BND).to(z_BND.dtype)
        return Quantized(codes, ids_BN, codebook_losses(unit_BND, codes_BND))

    def lookup(self, semantic_ids: Tensor, pixel_ids: Tensor) -> Tensor:
        """Unit-length codes of (semantic id, inner id), equal shapes (...,N) -> (...,N,D), fp32, with gradients."""
        table = rearrange(self.codebook_KmD, "k m d -> (k m) d")
        return F.normalize(F.embedding(self._places(semantic_ids, pixel_ids), table), dim=-1)

    def flatten_ids(self, semantic_ids: Tensor, pixel_ids: Tensor) -> Tensor:
        """Joint ids, k*m + j in [0, K*m) if all sizes are m. Ranges are not checked."""
        return self.layout.flatten(semantic_ids, pixel_ids)

    def split_ids(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Semantic ids k and inner ids j of joint ids. Ranges are not checked."""
        return self.layout.split(ids)

    def slots(self, ids: Tensor) -> Tensor:
        """Indices g*m + j into the flattened sub-codebooks, for joint ids (...,N)."""
        return self._places(*self.split_ids(ids))

    def groups(self, ids: Tensor) -> Tensor:
        """Sub-codebooks g in [0,G), for joint ids (...,N)."""
        return self.grouping(self.split_ids(ids)[0])

    @torch.no_grad()
    def initialise(self, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, iterations: int = 10) -> None:
        """k-means inside every sub-codebook; see ``Quantizer.initialise``.

        ``groups_N`` is required. For sub-codebooks with fewer than m patches see ``grouped_kmeans``.
        """
        assert groups_N is not None, "vectors of sub-codebooks need their groups"
        codebook_KmD = grouped_kmeans(
            gather_in_sample_order(z_ND),
            gather_in_sample_order(groups_N),
            *self.codebook_KmD.shape[:2],
            exists_Km=self._exists(),
            iterations=iterations,
            seed=seed,
        )
        copy_from_first_rank(codebook_KmD)
        self.codebook_KmD.copy_(codebook_KmD)

    def dead_codes(self, counts: Tensor, below: float) -> Tensor:
        """(G,m) pixel codes with fewer hits than ``below`` times the mean of all, except in rare sub-codebooks.

        A sub-codebook whose codes would be below that threshold even with evenly spread hits is too rare to tell, and
        none of its codes counts as dead.
        """
        counts_Km, exists_Km = counts.to(self.codebook_KmD.device), self._exists()
        exists_Km = torch.ones_like(counts_Km, dtype=torch.bool) if exists_Km is None else exists_Km
        threshold = below * float(counts_Km.double().sum()) / self.codes
        known_K = counts_Km.sum(1) >= threshold * exists_Km.sum(1)
        return (counts_Km < threshold) & known_K[:, None] & exists_Km

    @torch.no_grad()
    def replace_dead_codes(
        self, dead: Tensor, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, step: int
    ) -> int:
        """Replaces dead pixel codes by random patches of the same sub-codebook; see ``Quantizer.replace_dead_codes``.

        ``groups_N`` is required. At most one code is replaced per patch.
        """
        assert groups_N is not None, "vectors of sub-codebooks need their groups"
        z_ND = F.normalize(gather_in_sample_order(z_ND).float(), dim=-1)
        order_N = random_order(len(z_ND), keyed_generator(seed, step), z_ND.device)
        members_Km = members(gather_in_sample_order(groups_N), order_N, *self.counts_shape)
        return int(replace_slots(self.codebook_KmD, dead.to(z_ND.device), z_ND, members_Km).sum())

    def _places(self, semantic_ids: Tensor, pixel_ids: Tensor) -> Tensor:
        return self.grouping(semantic_ids) * self.subcodebook_size + pixel_ids

    def _exists(self) -> Tensor | None:
        """(K,m) bool of the codes that exist if sub-codebooks differ in size, otherwise None."""
        return None if self.layout.is_uniform else self.layout.exists.to(self.codebook_KmD.device)
