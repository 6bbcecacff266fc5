"""UniTok's image encoder, a ViTamin without class token and positions: (B,3,H,W) in [-1,1] -> (B,N,D).

Shapes: B images, H x W pixels, N = H/16 * W/16 tokens in row order, D channels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from einops import rearrange
from torch import Tensor, nn

from semhitok.nn.vitamin import EPSILON, Bottleneck, ChannelNorm, Stem, ViTaminBlock
from semhitok.tokenizers.unitok.configuration import UniTokConfig


class UniTokEncoder(nn.Module):
    """Stem, two convolutional stages, a strided convolution to the token grid, transformer blocks, a norm."""

    def __init__(self, config: UniTokConfig) -> None:
        super().__init__()
        first, second, channels = config.stage_widths
        self.stem = Stem(config.stem_width)
        self.stage1 = _halving_stage(config.stem_width, first, config.stage_depths[0])
        self.stage2 = _halving_stage(first, second, config.stage_depths[1])
        self.grid_norm = ChannelNorm(second)
        self.to_grid = nn.Conv2d(second, channels, 3, stride=2, padding=1)
        self.blocks: Iterable[ViTaminBlock] = transformer_blocks(config)  # pyright: ignore[reportAttributeAccessIssue]
        self.norm = nn.LayerNorm(channels, eps=EPSILON)

    def forward(self, pixel_values_BCHW: Tensor) -> Tensor:
        x_BDHW = self.stage2(self.stage1(self.stem(pixel_values_BCHW)))
        x_BND = rearrange(self.to_grid(self.grid_norm(x_BDHW)), "b d h w -> b (h w) d")
        for block in self.blocks:
            x_BND = block(x_BND)
        return self.norm(x_BND)


def transformer_blocks(config: UniTokConfig) -> nn.ModuleList:
    """The blocks of encoder or decoder; the share of dropped paths grows linearly over them."""
    rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
    return nn.ModuleList(ViTaminBlock(config.channels, config.heads, rate) for rate in rates)


def _halving_stage(channels_in: int, channels_out: int, depth: int) -> nn.Sequential:
    first = Bottleneck(channels_in, channels_out, "half")
    return nn.Sequential(first, *(Bottleneck(channels_out, channels_out) for _ in range(depth - 1)))
