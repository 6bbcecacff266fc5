"""Index back-propagation quantization, IBQ (Shi et al. 2024, arXiv 2412.02692): gradients reach every code.

The one-hot choice of a code is straight-through to the softmax over all codes, so that every code moves in every step.

Shapes: B images, N tokens (elsewhere: vectors), K codes, D channels.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from semhitok.nn.exact import without_autocast
from semhitok.quantizers.base import Float32Module, Quantizer, codebook_losses
from semhitok.quantizers.entropy import entropy_terms
from semhitok.quantizers.lookup import largest_product
from semhitok.types import Quantized


class IndexBackpropagationQuantizer(Float32Module, Quantizer):
    """A codebook whose best code has the largest inner product with the feature; neither is normalised.

    Args:
        codebook_size: K.
        dim: D.
        temperature: of the softmax in the entropy terms; the choice itself has temperature 1.
    """

    codebooks: ClassVar[tuple[str, ...]] = ("codebook_KD",)

    def __init__(self, codebook_size: int, dim: int, *, temperature: float = 0.01) -> None:
        super().__init__()
        self.temperature = temperature
        self.codebook_KD = nn.Parameter(torch.empty(codebook_size, dim, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set codes uniform in [-1/K, 1/K], so small that every code has a share in every feature at the start."""
        bound = 1 / len(self.codebook_KD)
        nn.init.uniform_(self.codebook_KD, -bound, bound)

    def forward(self, z_BND: Tensor) -> Quantized:
        """Choose a code, with gradients to the features and to all codes.

        Args:
            z_BND: (B,N,D), any float dtype; compared in fp32.

        Returns:
            codes (B,N,D) in the dtype of ``z_BND``; ids (B,N); losses ``index`` (features and codes to each other through the
            softmax), ``commitment``, ``codebook``, ``token_entropy`` and ``diversity`` (see ``entropy``).
        """
        z_ND = rearrange(z_BND.float(), "b n d -> (b n) d")
        ids_N = largest_product(z_ND.detach(), self.codebook_KD)
        codes_ND = self.lookup(ids_N)
        losses = codebook_losses(z_ND, codes_ND)
        with without_autocast(z_BND.device):
            logits_NK = z_ND @ self.codebook_KD.T
            # (one-hot - sg[softmax] + softmax) @ codebook: the value of the code, the codebook's gradient through the chosen
            # row, and that of the softmax. The difference is exactly 0, so the value is bit-identical to the code.
            soft_ND = logits_NK.softmax(dim=-1) @ self.codebook_KD.detach()
        chosen_ND = codes_ND + (soft_ND - soft_ND.detach())
        losses |= {"index": F.mse_loss(chosen_ND, z_ND), **entropy_terms(logits_NK / self.temperature)}
        codes_BND = rearrange(chosen_ND, "(b n) d -> b n d", b=z_BND.shape[0])
        return Quantized(codes_BND.to(z_BND.dtype), rearrange(ids_N, "(b n) -> b n", b=z_BND.shape[0]), losses)

    def lookup(self, ids: Tensor) -> Tensor:
        """Codes of ids of any shape (...) -> (...,D), fp32; gradients reach the codebook."""
        return F.embedding(ids, self.codebook_KD)

    def initialise(self, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, iterations: int = 10) -> None:
        """Nothing: codes as long as the features would make the softmax one-hot, and no other code would get a gradient."""

    def replace_dead_codes(
        self, dead: Tensor, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, step: int
    ) -> int:
        """No code is ever replaced: of inner products, that with a code as long as a feature would always be the largest."""
        return 0
