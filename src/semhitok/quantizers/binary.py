"""Lookup-free quantization: every channel is replaced by its sign, and the signs are the bits of the id.

LFQ (MAGVIT-v2, Yu et al. 2023, arXiv 2310.05737), BSQ on the unit sphere (Zhao et al. 2024, arXiv 2406.07548), and the
group-wise codes of WeTok (arXiv 2508.05599): C groups of b bits each, whose entropies are taken group by group.

The softmax over the 2^b codes of a group factorises into its bits, so both entropy terms are exact without a table of codes:
a token's entropy is the sum over its bits, and the mean distribution over codes is one product of the two halves' tables.

Shapes: B images, N tokens (elsewhere: vectors), C groups, b bits of each, D = C b channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from semhitok.nn.exact import without_autocast
from semhitok.quantizers.base import Float32Module, FormulaQuantizer, straight_through
from semhitok.quantizers.entropy import entropy
from semhitok.types import Quantized

MOST_BITS = 24  # of one group: the mean distribution over its codes is a tensor


class BinaryQuantizer(Float32Module, FormulaQuantizer):
    """C groups of b bits; ids in [0, 2^b), the first channel of a group being its highest bit.

    Args:
        groups: C; with one group ids are (B,N), otherwise (B,N,C).
        bits: b.
        spherical: BSQ: features and codes have unit length, so that codes are +-1 / sqrt(D); otherwise they are +-1.
        temperature: of the softmax over codes in the entropy terms, exp(2 z c / temperature).

    Raises:
        ValueError: a number is below 1, a group has too many bits, or the temperature is not above 0.
    """

    codebooks = ()

    def __init__(self, groups: int, bits: int, *, spherical: bool = False, temperature: float = 0.01) -> None:
        super().__init__()
        if groups < 1 or not 1 <= bits <= MOST_BITS or temperature <= 0:
            raise ValueError(
                f"lookup-free codes need at least 1 group of 1 to {MOST_BITS} bits and a temperature above 0, got {groups} "
                f"of {bits} at {temperature}"
            )
        self.groups_count, self.bits, self.spherical, self.temperature = groups, bits, spherical, temperature
        self.scale = (groups * bits) ** -0.5 if spherical else 1.0

    @property
    def counts_shape(self) -> tuple[int, ...]:
        """(2^b,), or (C, 2^b) with several groups."""
        size = 2**self.bits
        return (size,) if self.groups_count == 1 else (self.groups_count, size)

    def forward(self, z_BND: Tensor) -> Quantized:
        """Signs of the features.

        Args:
            z_BND: (B,N,D), any float dtype; computed in fp32. Zero counts as negative.

        Returns:
            codes (B,N,D), straight-through to the features (on the sphere if ``spherical``); ids; losses ``commitment``,
            ``token_entropy`` and ``diversity`` (means over groups, see ``entropy``).
        """
        z = F.normalize(z_BND.float(), dim=-1) if self.spherical else z_BND.float()
        bits_BNCb = rearrange(z > 0, "b n (c k) -> b n c k", c=self.groups_count)
        ids_BNC = (bits_BNCb * self._weights(z.device)).sum(dim=-1)
        ids = ids_BNC[..., 0] if self.groups_count == 1 else ids_BNC
        codes_BND = self.lookup(ids)
        losses = {"commitment": F.mse_loss(z, codes_BND), **self._entropies(z)}
        return Quantized(straight_through(z, codes_BND).to(z_BND.dtype), ids, losses)

    def lookup(self, ids: Tensor) -> Tensor:
        """Codes of ids (B,N), or (B,N,C) with several groups -> (B,N,D), fp32."""
        ids_BNC = ids[..., None] if self.groups_count == 1 else ids
        bits_BNCb = (ids_BNC[..., None] & self._weights(ids.device)) > 0
        signs_BNCb = bits_BNCb.float() * 2 - 1
        return rearrange(signs_BNCb * self.scale, "b n c k -> b n (c k)")

    def _entropies(self, z_BND: Tensor) -> dict[str, Tensor]:
        with without_autocast(z_BND.device):
            logits_NCb = rearrange(z_BND, "b n (c k) -> (b n) c k", c=self.groups_count) * (
                4 * self.scale / self.temperature
            )
            positive_NCb, negative_NCb = logits_NCb.sigmoid(), (-logits_NCb).sigmoid()
            # H of a bit = -p log p - q log q, with log-sigmoids so that confident bits stay finite.
            bit_NCb = -(positive_NCb * F.logsigmoid(logits_NCb) + negative_NCb * F.logsigmoid(-logits_NCb))
            mean_CK = _mean_distribution(torch.stack([negative_NCb, positive_NCb], dim=-1))
            return {"token_entropy": bit_NCb.sum(dim=-1).mean(), "diversity": -entropy(mean_CK).mean()}

    def _weights(self, device: torch.device) -> Tensor:
        return 2 ** torch.arange(self.bits - 1, -1, -1, device=device)


def _mean_distribution(probabilities_NCb2: Tensor) -> Tensor:
    """Mean over tokens of the distribution over the codes of each group, (C, 2^b), from the probabilities of its bits."""
    bits = probabilities_NCb2.shape[2]
    first, second = (_joint(half) for half in probabilities_NCb2.split([(bits + 1) // 2, bits // 2], dim=2))
    mean_CLR = torch.einsum("ncl,ncr->clr", first, second) / probabilities_NCb2.shape[0]
    return mean_CLR.flatten(1)


def _joint(probabilities_NCb2: Tensor) -> Tensor:
    """Distribution over all values of independent bits, the first being the highest: (N,C,2^b)."""
    joint = probabilities_NCb2.new_ones((*probabilities_NCb2.shape[:2], 1))
    for bit in probabilities_NCb2.unbind(dim=2):
        joint = (joint[..., :, None] * bit[..., None, :]).flatten(2)
    return joint
