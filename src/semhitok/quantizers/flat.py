"""Flat codebooks trained by gradients: the vanilla and normalised quantizers of the paper's Table 8 and of VQGANs.

Shapes: B images, N tokens (elsewhere: vectors), K codes, D channels.
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
from semhitok.quantizers.lookup import nearest_code, nearest_cosine
from semhitok.types import Quantized


class VanillaQuantizer(Float32Module, Quantizer):
    """Euclidean codebook trained by the codebook loss (van den Oord et al., 2017).

    Args:
        codebook_size: K.
        dim: D.
    """

    codebooks: ClassVar[tuple[str, ...]] = ("codebook_KD",)

    def __init__(self, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.codebook_KD = nn.Parameter(torch.empty(codebook_size, dim, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set codes uniform in [-1/K, 1/K], as in VQGAN; ``initialise`` replaces them."""
        bound = 1 / len(self.codebook_KD)
        nn.init.uniform_(self.codebook_KD, -bound, bound)

    def forward(self, z_BND: Tensor) -> Quantized:
        """Quantize (B,N,D) features to the nearest codes, straight-through in their dtype; ids in [0,K), two losses."""
        z_ND = rearrange(z_BND.detach(), "b n d -> (b n) d")
        ids_BN = rearrange(nearest_code(z_ND, self.codebook_KD), "(b n) -> b n", b=z_BND.shape[0])
        codes_BND = self.lookup(ids_BN)
        return Quantized(straight_through(z_BND, codes_BND), ids_BN, codebook_losses(z_BND.float(), codes_BND))

    def lookup(self, ids: Tensor) -> Tensor:
        """Codes of ids of any shape (...) -> (...,D), fp32; gradients reach the codebook."""
        return F.embedding(ids, self.codebook_KD)

    @torch.no_grad()
    def initialise(self, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, iterations: int = 10) -> None:
        """k-means; see ``Quantizer.initialise``."""
        z_ND = gather_in_sample_order(z_ND)
        self.codebook_KD.copy_(shared_kmeans(z_ND, len(self.codebook_KD), iterations=iterations, seed=seed))

    @torch.no_grad()
    def replace_dead_codes(
        self, dead: Tensor, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, step: int
    ) -> int:
        """See ``Quantizer.replace_dead_codes``.

        The optimizer's moments of these rows are kept: without gradients, they have already decayed.
        """
        return len(replace_dead(self.codebook_KD, gather_in_sample_order(z_ND), dead, seed=seed, step=step))


class NormalizedQuantizer(Float32Module, Quantizer):
    """Codebook on the unit sphere: features and codes are l2-normalised and compared by cosine (ViT-VQGAN).

    Args:
        codebook_size: K.
        dim: D.
    """

    codebooks: ClassVar[tuple[str, ...]] = ("codebook_KD",)

    def __init__(self, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.codebook_KD = nn.Parameter(torch.empty(codebook_size, dim, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set codes with uniform directions and unit expected length."""
        nn.init.normal_(self.codebook_KD, std=self.codebook_KD.shape[1] ** -0.5)

    def forward(self, z_BND: Tensor) -> Quantized:
        """Quantize (B,N,D) features to unit-length codes, straight-through to the normalised features, with two losses."""
        z_ND = rearrange(z_BND.detach(), "b n d -> (b n) d")
        ids_BN = rearrange(nearest_cosine(z_ND, self.codebook_KD), "(b n) -> b n", b=z_BND.shape[0])
        codes_BND = self.lookup(ids_BN)
        unit_BND = F.normalize(z_BND.float(), dim=-1)
        codes = straight_through(unit_BND, codes_BND).to(z_BND.dtype)
        return Quantized(codes, ids_BN, codebook_losses(unit_BND, codes_BND))

    def lookup(self, ids: Tensor) -> Tensor:
        """Unit-length codes of ids of any shape (...) -> (...,D), fp32; gradients reach the codebook."""
        return F.normalize(F.embedding(ids, self.codebook_KD), dim=-1)

    @torch.no_grad()
    def initialise(self, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, iterations: int = 10) -> None:
        """Spherical k-means; see ``Quantizer.initialise``."""
        z_ND, size = gather_in_sample_order(z_ND), len(self.codebook_KD)
        self.codebook_KD.copy_(shared_kmeans(z_ND, size, iterations=iterations, seed=seed, spherical=True))

    @torch.no_grad()
    def replace_dead_codes(
        self, dead: Tensor, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, step: int
    ) -> int:
        """As ``VanillaQuantizer.replace_dead_codes``, with normalised vectors."""
        unit_ND = F.normalize(gather_in_sample_order(z_ND).float(), dim=-1)
        return len(replace_dead(self.codebook_KD, unit_ND, dead, seed=seed, step=step))
