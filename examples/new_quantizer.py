"""A quantizer in one file: SimVQ (Zhu et al. 2024, arXiv 2411.02038), whose codes are a fixed table times a learned matrix.

Every step moves all codes at once, including those without hits, so there are no dead codes to replace.
``docs/architecture.md`` shows the line that registers it.

Shapes: B images, N tokens (elsewhere: vectors), K codes, D channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from semhitok.quantizers.base import Float32Module, TokenQuantizer, codebook_losses, straight_through
from semhitok.quantizers.lookup import nearest_code
from semhitok.types import Quantized


class SimVQ(Float32Module, TokenQuantizer):
    """Nearest code by Euclidean distance, among the rows of ``table_KD @ basis_DD``.

    Args:
        codebook_size: K.
        dim: D.
    """

    codebooks = ("table_KD", "basis_DD")  # what ids depend on; never decayed

    def __init__(self, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("table_KD", torch.empty(codebook_size, dim, dtype=torch.float32))
        self.basis_DD = nn.Parameter(torch.empty(dim, dim, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the table with random vectors of unit expected length, and the matrix with the identity."""
        nn.init.normal_(self.table_KD, std=self.table_KD.shape[1] ** -0.5)
        nn.init.eye_(self.basis_DD)

    def codes(self) -> Tensor:
        """All codes, fp32 whatever the caller's autocast."""
        with torch.autocast(self.table_KD.device.type, enabled=False):
            return self.table_KD @ self.basis_DD

    def forward(self, z_BND: Tensor) -> Quantized:
        """See ``TokenQuantizer``."""
        z_ND = rearrange(z_BND.detach(), "b n d -> (b n) d")
        ids_BN = rearrange(nearest_code(z_ND, self.codes().detach()), "(b n) -> b n", b=len(z_BND))
        codes_BND = self.lookup(ids_BN)
        return Quantized(straight_through(z_BND, codes_BND), ids_BN, codebook_losses(z_BND.float(), codes_BND))

    def lookup(self, ids: Tensor) -> Tensor:
        """See ``TokenQuantizer``; gradients reach the matrix."""
        return F.embedding(ids, self.codes())

    def initialise(self, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, iterations: int = 10) -> None:
        """No-op: the table stays random and the matrix adapts it to the features."""

    def replace_dead_codes(
        self, dead: Tensor, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, step: int
    ) -> int:
        """No code is ever replaced."""
        return 0
