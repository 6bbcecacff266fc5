"""A frozen table behind a trained linear map with bias: SimVQ (arXiv 2411.02038) and VQGAN-LC (Zhu et al. 2024, arXiv 2406.11837).

SimVQ's table is random and as wide as the features; VQGAN-LC's are cluster centres of a frozen vision encoder's features
(``set_table``). Every step moves all codes at once.

The scale of the codes at the start decides how many are ever used: where codes are longer than the features, only the
shortest are nearest to any. They begin with a mean squared length of 1/3, as in SimVQ's code.

Shapes: B images, N tokens (elsewhere: vectors), K codes, T channels of the table, D channels.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from semhitok.nn.exact import without_autocast
from semhitok.quantizers.base import Float32Module, Quantizer, codebook_losses, straight_through
from semhitok.quantizers.lookup import nearest_code
from semhitok.types import Quantized


class ProjectedQuantizer(Float32Module, Quantizer):
    """Nearest code by Euclidean distance among the rows of table @ projection + bias.

    Args:
        codebook_size: K.
        table_dim: T.
        dim: D.
    """

    codebooks: ClassVar[tuple[str, ...]] = ("table_KT", "projection_TD", "bias_D")
    table_KT: Tensor

    def __init__(self, codebook_size: int, table_dim: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("table_KT", torch.empty(codebook_size, table_dim, dtype=torch.float32))
        self.projection_TD = nn.Parameter(torch.empty(table_dim, dim, dtype=torch.float32))
        self.bias_D = nn.Parameter(torch.empty(dim, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set a normal table with rows of mean squared length 1, a uniform projection in +-D^-0.5, and a bias of 0."""
        nn.init.normal_(self.table_KT, std=self.table_KT.shape[1] ** -0.5)
        bound = self.projection_TD.shape[1] ** -0.5
        nn.init.uniform_(self.projection_TD, -bound, bound)
        nn.init.zeros_(self.bias_D)

    @torch.no_grad()
    def set_table(self, table_KT: Tensor) -> None:
        """Freeze this table (K,T), shifted to mean 0 and scaled to rows of mean squared length 1, like the random one.

        Raises:
            ValueError: it has another shape.
        """
        if table_KT.shape != self.table_KT.shape:
            raise ValueError(f"the table must have shape {tuple(self.table_KT.shape)}, got {tuple(table_KT.shape)}")
        centred_KT = table_KT.float() - table_KT.float().mean(dim=0)
        length = centred_KT.square().sum(dim=1).mean().sqrt()
        self.table_KT.copy_(centred_KT / length.clamp_min(1e-12))

    def codes(self) -> Tensor:
        """All codes (K,D), fp32 whatever the caller's autocast."""
        with without_autocast(self.table_KT.device):
            return torch.addmm(self.bias_D, self.table_KT, self.projection_TD)

    @property
    def counts_shape(self) -> tuple[int, ...]:
        """(K,)."""
        return (len(self.table_KT),)

    def forward(self, z_BND: Tensor) -> Quantized:
        """Quantize (B,N,D) features, straight-through in their dtype; ids (B,N), losses ``codebook`` and ``commitment``."""
        z_ND = rearrange(z_BND.detach(), "b n d -> (b n) d")
        codes_KD = self.codes()
        ids_BN = rearrange(nearest_code(z_ND, codes_KD.detach()), "(b n) -> b n", b=z_BND.shape[0])
        codes_BND = F.embedding(ids_BN, codes_KD)
        return Quantized(straight_through(z_BND, codes_BND), ids_BN, codebook_losses(z_BND.float(), codes_BND))

    def lookup(self, ids: Tensor) -> Tensor:
        """Codes of ids of any shape (...) -> (...,D), fp32; gradients reach projection and bias."""
        return F.embedding(ids, self.codes())

    def initialise(self, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, iterations: int = 10) -> None:
        """Nothing: the table is frozen, and the projection adapts it to the features."""

    def replace_dead_codes(
        self, dead: Tensor, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, step: int
    ) -> int:
        """No code is ever replaced."""
        return 0
