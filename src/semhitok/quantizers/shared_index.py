"""Two codebooks with one shared index (TokenFlow, Qu et al. 2024, arXiv 2412.03069, section 3.2).

A feature has a semantic and a pixel part, each with a codebook of its own, and both are replaced by the codes of the same
index, which has the smallest weighted sum of both distances. All parts are l2-normalised.

Shapes: B images, N tokens (elsewhere: vectors), K codes, d_s and d_p channels of the parts, D = d_s + d_p.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from semhitok.distributed import gather_in_sample_order
from semhitok.quantizers.base import Float32Module, Quantizer, codebook_losses, straight_through
from semhitok.quantizers.dead_codes import replace_dead
from semhitok.quantizers.kmeans import shared_kmeans
from semhitok.quantizers.lookup import nearest_code
from semhitok.types import Quantized


class SharedIndexQuantizer(Float32Module, Quantizer):
    """The code of an index is [semantic code ; pixel code], both of unit length.

    Both codebooks are one tensor, the semantic channels first.

    Args:
        codebook_size: K.
        semantic_dim, pixel_dim: d_s and d_p.
        semantic_weight: factor of the semantic distance; 1 in the paper.

    Raises:
        ValueError: a part has no channels, or the weight is not above 0.
    """

    codebooks: ClassVar[tuple[str, ...]] = ("codebook_KD",)

    def __init__(self, codebook_size: int, semantic_dim: int, pixel_dim: int, *, semantic_weight: float = 1.0) -> None:
        super().__init__()
        if min(semantic_dim, pixel_dim) < 1 or semantic_weight <= 0:
            raise ValueError(
                "a shared index needs at least 1 semantic and 1 pixel channel and a weight above 0, got "
                f"{semantic_dim}, {pixel_dim} and {semantic_weight}"
            )
        self.dims, self.semantic_weight = (semantic_dim, pixel_dim), semantic_weight
        self.codebook_KD = nn.Parameter(torch.empty(codebook_size, semantic_dim + pixel_dim, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set codes with uniform directions and unit expected length in each part."""
        for part in self.codebook_KD.split(self.dims, dim=1):
            nn.init.normal_(part, std=part.shape[1] ** -0.5)

    def forward(self, z_BND: Tensor) -> Quantized:
        """Quantize (B,N,D) features to the codes of one index, straight-through to the normalised parts.

        Returns:
            codes (B,N,D) in the dtype of ``z_BND``, ids (B,N), losses ``codebook`` and ``commitment``: sums over both parts of
            their mean squared errors.
        """
        unit_BND = self.normalise(z_BND)
        weighted_ND = self._weighted(rearrange(unit_BND.detach(), "b n d -> (b n) d"))
        codes_KD = self.normalise(self.codebook_KD.detach())
        ids_BN = rearrange(nearest_code(weighted_ND, self._weighted(codes_KD)), "(b n) -> b n", b=z_BND.shape[0])
        codes_BND = self.lookup(ids_BN)
        parts = zip(unit_BND.split(self.dims, dim=-1), codes_BND.split(self.dims, dim=-1), strict=True)
        semantic, pixel = (codebook_losses(*part) for part in parts)
        losses = {name: semantic[name] + pixel[name] for name in semantic}
        return Quantized(straight_through(unit_BND, codes_BND).to(z_BND.dtype), ids_BN, losses)

    def normalise(self, z: Tensor) -> Tensor:
        """Vectors (...,D) with both parts normalised to unit length, fp32."""
        return torch.cat([F.normalize(part, dim=-1) for part in z.float().split(self.dims, dim=-1)], dim=-1)

    def lookup(self, ids: Tensor) -> Tensor:
        """Codes of ids of any shape (...) -> (...,D), fp32; gradients reach both codebooks."""
        return self.normalise(F.embedding(ids, self.codebook_KD))

    @torch.no_grad()
    def initialise(self, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, iterations: int = 10) -> None:
        """k-means of the weighted, normalised parts; see ``Quantizer.initialise``."""
        z_ND = self._weighted(self.normalise(gather_in_sample_order(z_ND)))
        centres_KD = shared_kmeans(z_ND, len(self.codebook_KD), iterations=iterations, seed=seed)
        self.codebook_KD.copy_(self.normalise(centres_KD))

    @torch.no_grad()
    def replace_dead_codes(
        self, dead: Tensor, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, step: int
    ) -> int:
        """See ``Quantizer.replace_dead_codes``, with normalised vectors."""
        unit_ND = self.normalise(gather_in_sample_order(z_ND))
        return len(replace_dead(self.codebook_KD, unit_ND, dead, seed=seed, step=step))

    def _weighted(self, unit: Tensor) -> Tensor:
        """Scaled so that the squared Euclidean distance is the weighted sum of both parts' squared distances."""
        semantic, pixel = unit.split(self.dims, dim=-1)
        return torch.cat([semantic * self.semantic_weight**0.5, pixel], dim=-1)
