"""A quantizer of your own in one file, trained beside the known ones:

    semhitok compare --quantizer examples/own_quantizer.py --train vqgan own-directions --data scenes/train --test scenes/heldout

Its codes are random directions that are never trained: the encoder alone learns to meet them. A quantizer derives from
``TokenQuantizer``, declares in ``codebooks`` which tensors decide ids, and returns its losses by name; ``register_quantizer`` gives
it a name, and the weights of those losses.

Shapes: B images, N tokens (elsewhere: vectors), K codes, D channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from semhitok.quantizers import register_quantizer
from semhitok.quantizers.base import Float32Module, TokenQuantizer, straight_through
from semhitok.quantizers.lookup import nearest_cosine
from semhitok.types import Quantized


class FixedDirections(Float32Module, TokenQuantizer):
    """The nearest of K random unit vectors by cosine.

    Args:
        codebook_size: K.
        dim: D.
    """

    codebooks = ("directions_KD",)
    directions_KD: Tensor

    def __init__(self, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("directions_KD", torch.empty(codebook_size, dim, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Choose the directions; called once when a model is built, and they are stored with it."""
        nn.init.normal_(self.directions_KD)
        self.directions_KD /= self.directions_KD.norm(dim=-1, keepdim=True)

    def forward(self, z_BND: Tensor) -> Quantized:
        """See ``TokenQuantizer``."""
        z_ND = rearrange(z_BND.detach(), "b n d -> (b n) d")
        ids_BN = rearrange(nearest_cosine(z_ND, self.directions_KD), "(b n) -> b n", b=len(z_BND))
        unit_BND, codes_BND = F.normalize(z_BND.float(), dim=-1), self.lookup(ids_BN)
        codes = straight_through(unit_BND, codes_BND).to(z_BND.dtype)
        return Quantized(codes, ids_BN, {"commitment": F.mse_loss(unit_BND, codes_BND)})

    def lookup(self, ids: Tensor) -> Tensor:
        """See ``TokenQuantizer``."""
        return F.embedding(ids, self.directions_KD)

    def initialise(self, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, iterations: int = 10) -> None:
        """The directions stay as they are."""

    def replace_dead_codes(
        self, dead: Tensor, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, step: int
    ) -> int:
        """No code is ever replaced."""
        return 0


register_quantizer(
    "own-directions", lambda s: FixedDirections(s.codebook_size, s.dim), code_dim=8, weights={"commitment": 0.25}
)
