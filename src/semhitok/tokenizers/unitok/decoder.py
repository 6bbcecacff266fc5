"""UniTok's image decoder, the encoder's mirror: (B,N,D) and the grid -> (B,3,H,W), unbounded.

Shapes: B images, N tokens in row order, D channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable

from einops import rearrange
from torch import Tensor, nn

from semhitok.nn.vitamin import EPSILON, Bottleneck, Doubling, InverseStem, ViTaminBlock
from semhitok.tokenizers.unitok.configuration import UniTokConfig
from semhitok.tokenizers.unitok.encoder import transformer_blocks


class UniTokDecoder(nn.Module):
    """Transformer blocks, a norm, up-sampling, two convolutional stages that double the resolution, an inverse stem."""

    def __init__(self, config: UniTokConfig) -> None:
        super().__init__()
        first, second, channels = config.stage_widths
        inner, outer = config.decoder_stage_depths
        self.blocks: Iterable[ViTaminBlock] = transformer_blocks(config)  # pyright: ignore[reportAttributeAccessIssue]
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.from_grid = Doubling(channels, second)
        self.stage1 = _doubling_stage(second, second, inner)
        self.stage2 = _doubling_stage(second, first, outer)
        self.stem = InverseStem(first)

    def forward(self, x_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        for block in self.blocks:
            x_BND = block(x_BND)
        x_BDHW = rearrange(self.norm(x_BND), "b (h w) d -> b d h w", h=grid[0])
        return self.stem(self.stage2(self.stage1(self.from_grid(x_BDHW))))

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight that the adaptive adversarial weight is measured at (VQGAN, eq. 7)."""
        return self.stem.draw.weight  # pyright: ignore[reportReturnType]


def _doubling_stage(channels_in: int, channels_out: int, depth: int) -> nn.Sequential:
    first = Bottleneck(channels_in, channels_out, "double")
    return nn.Sequential(first, *(Bottleneck(channels_out, channels_out) for _ in range(depth - 1)))
