"""Multi-codebook quantization, MCQ (UniTok, arXiv 2502.20321, section 3.2).

A feature is split into C chunks, and each is quantized with its own codebook. The vocabulary grows exponentially with C,
while each codebook stays small enough to be fully used. With a loss between the codebooks these are FQGAN's factors.

Shapes: B images, N tokens (elsewhere: vectors), C codebooks of K codes each, D channels, c = D / C channels of a chunk.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from semhitok.distributed import gather_in_sample_order
from semhitok.nn.exact import without_autocast
from semhitok.quantizers.base import Float32Module, Quantizer, codebook_losses, straight_through
from semhitok.quantizers.dead_codes import replace_dead
from semhitok.quantizers.kmeans import shared_kmeans
from semhitok.quantizers.lookup import nearest_cosine_of_each
from semhitok.types import Quantized

BOUND = 1 / 36
"""Codes are initialised uniformly within BOUND / sqrt(c), as in the released model; only their directions matter."""


class MultiCodebookQuantizer(Float32Module, Quantizer):
    """C codebooks of K codes; chunks and codes are l2-normalised and compared by cosine.

    Args:
        num_codebooks: C.
        codebook_size: K, codes of one codebook.
        dim: D, a multiple of C.
        disentangle: also return the loss ``disentanglement`` of FQGAN (see ``disentanglement_loss``).
    """

    codebooks: ClassVar[tuple[str, ...]] = ("codebooks_CKc",)

    def __init__(self, num_codebooks: int, codebook_size: int, dim: int, *, disentangle: bool = False) -> None:
        super().__init__()
        self.disentangle = disentangle
        if dim % num_codebooks:
            raise ValueError(f"{dim} channels cannot be split into {num_codebooks} chunks of equal width")
        self.codebooks_CKc = nn.Parameter(
            torch.empty(num_codebooks, codebook_size, dim // num_codebooks, dtype=torch.float32)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set codes uniform around zero."""
        bound = BOUND * self.codebooks_CKc.shape[2] ** -0.5
        nn.init.uniform_(self.codebooks_CKc, -bound, bound)

    def forward(self, z_BND: Tensor) -> Quantized:
        """Quantize every chunk to its best code.

        Args:
            z_BND: (B,N,D), any float dtype; compared in fp32.

        Returns:
            codes (B,N,D), chunks of unit length, in the dtype of ``z_BND``, straight-through to the normalised features;
            ids (B,N,C) in [0,K); losses ``codebook`` and ``commitment``, means over everything, unweighted, and
            ``disentanglement`` if requested.
        """
        unit_BND = self.normalise(z_BND)
        chunks_CMc = rearrange(unit_BND.detach(), "b n (c d) -> c (b n) d", c=len(self.codebooks_CKc))
        ids_BNC = rearrange(
            nearest_cosine_of_each(chunks_CMc, self.codebooks_CKc), "c (b n) -> b n c", b=z_BND.shape[0]
        )
        codes_BND = self.lookup(ids_BNC)
        codes = straight_through(unit_BND, codes_BND).to(z_BND.dtype)
        losses = codebook_losses(unit_BND, codes_BND)
        if self.disentangle:
            chunks = rearrange(straight_through(unit_BND, codes_BND), "b n (c d) -> b n c d", c=len(self.codebooks_CKc))
            losses["disentanglement"] = disentanglement_loss(chunks)
        return Quantized(codes, ids_BNC, losses)

    def normalise(self, z_BND: Tensor) -> Tensor:
        """Features with each chunk normalised to unit length, fp32."""
        chunks = rearrange(z_BND.float(), "b n (c d) -> b n c d", c=len(self.codebooks_CKc))
        return rearrange(F.normalize(chunks, dim=-1), "b n c d -> b n (c d)")

    def lookup(self, ids_BNC: Tensor) -> Tensor:
        """Codes of ids (B,N,C) -> (B,N,D), chunks of unit length, fp32; gradients reach the codebooks."""
        table = rearrange(self.codebooks_CKc, "c k d -> (c k) d")
        offsets_C = torch.arange(len(self.codebooks_CKc), device=ids_BNC.device) * self.codebooks_CKc.shape[1]
        chunks = F.normalize(F.embedding(ids_BNC + offsets_C, table), dim=-1)
        return rearrange(chunks, "b n c d -> b n (c d)")

    @torch.no_grad()
    def initialise(self, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, iterations: int = 10) -> None:
        """Spherical k-means in every codebook; see ``Quantizer.initialise``."""
        size = self.counts_shape[1]
        for number, chunk_Nc in enumerate(self._chunks(gather_in_sample_order(z_ND))):
            self.codebooks_CKc[number] = shared_kmeans(
                chunk_Nc, size, iterations=iterations, seed=seed + number, spherical=True
            )

    @torch.no_grad()
    def replace_dead_codes(
        self, dead: Tensor, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, step: int
    ) -> int:
        """See ``Quantizer.replace_dead_codes``; dead codes (C,K) are replaced by chunks of vectors."""
        chunks_CNc = self._chunks(gather_in_sample_order(z_ND))
        return sum(
            len(replace_dead(codebook_Kc, chunk_Nc, dead_K, seed=seed + number, step=step))
            for number, (codebook_Kc, chunk_Nc, dead_K) in enumerate(
                zip(self.codebooks_CKc, chunks_CNc, dead, strict=True)
            )
        )

    def _chunks(self, z_ND: Tensor) -> Tensor:
        chunks_CNc = rearrange(z_ND.float(), "n (c d) -> c n d", c=len(self.codebooks_CKc))
        return F.normalize(chunks_CNc, dim=-1).contiguous()


def disentanglement_loss(chunks_BNCc: Tensor) -> Tensor:
    """Mean squared cosine between a token's codes of different codebooks, a scalar in [0,1]; 0 for one codebook.

    FQGAN (Bai et al. 2024, arXiv 2411.16681, section 3.2): the factors should be orthogonal.
    """
    unit = F.normalize(chunks_BNCc.float(), dim=-1)
    codes = unit.shape[2]
    with without_autocast(unit.device):
        cosines_BNCC = torch.einsum("bnic,bnjc->bnij", unit, unit)
    rows, columns = torch.triu_indices(codes, codes, offset=1, device=unit.device)
    return cosines_BNCC[..., rows, columns].square().mean() if codes > 1 else unit.new_zeros(())
