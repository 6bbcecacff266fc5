"""UniTok's image encoder, a ViTamin without class token and position embedding, and the decoder that mirrors it.

Shapes: B images, H x W pixels, N = H/16 * W/16 tokens in row order, D channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from semhitok.nn.vitamin import EPSILON, Bottleneck, ChannelNorm, Doubling, InverseStem, Stem, ViTaminBlock
from semhitok.tokenizers.unitok.configuration import UniTokConfig


class UniTokEncoder(nn.Module):
    """Images (B,3,H,W) in [-1,1] to tokens (B,N,D).

    Stem, two convolutional stages, a strided convolution to the token grid, transformer blocks, a norm.
    """

    def __init__(self, config: UniTokConfig) -> None:
        super().__init__()
        first, second, channels = config.stage_widths
        self.stem = Stem(config.stem_width)
        self.stage1 = _stage("half", config.stem_width, first, config.stage_depths[0])
        self.stage2 = _stage("half", first, second, config.stage_depths[1])
        self.grid_norm = ChannelNorm(second)
        self.to_grid = nn.Conv2d(second, channels, 3, stride=2, padding=1)
        self.blocks: Iterable[ViTaminBlock] = _transformer_blocks(config)  # pyright: ignore[reportAttributeAccessIssue]
        self.norm = nn.LayerNorm(channels, eps=EPSILON)

    def forward(self, pixel_values_BCHW: Tensor) -> Tensor:
        x_BDHW = self.stage2(self.stage1(self.stem(pixel_values_BCHW)))
        x_BND = rearrange(self.to_grid(self.grid_norm(x_BDHW)), "b d h w -> b (h w) d")
        for block in self.blocks:
            x_BND = block(x_BND)
        return self.norm(x_BND)


class UniTokDecoder(nn.Module):
    """Tokens (B,N,D) and their grid to images (B,3,H,W), unbounded.

    Transformer blocks, a norm, upsampling, two convolutional stages that double the resolution, an inverse stem.
    """

    def __init__(self, config: UniTokConfig) -> None:
        super().__init__()
        first, second, channels = config.stage_widths
        inner, outer = config.decoder_stage_depths
        self.blocks: Iterable[ViTaminBlock] = _transformer_blocks(config)  # pyright: ignore[reportAttributeAccessIssue]
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.from_grid = Doubling(channels, second)
        self.stage1 = _stage("double", second, second, inner)
        self.stage2 = _stage("double", second, first, outer)
        self.stem = InverseStem(first)

    def forward(self, x_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        for block in self.blocks:
            x_BND = block(x_BND)
        x_BDHW = rearrange(self.norm(x_BND), "b (h w) d -> b d h w", h=grid[0])
        return self.stem(self.stage2(self.stage1(self.from_grid(x_BDHW))))

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight whose gradients determine the adaptive adversarial weight (VQGAN, eq. 7)."""
        return self.stem.draw.weight  # pyright: ignore[reportReturnType]


def _transformer_blocks(config: UniTokConfig) -> nn.ModuleList:
    """The blocks of encoder or decoder, with a drop-path rate that increases linearly."""
    rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
    return nn.ModuleList(ViTaminBlock(config.channels, config.heads, rate) for rate in rates)


def _stage(kind: Literal["half", "double"], channels_in: int, channels_out: int, depth: int) -> nn.Sequential:
    first = Bottleneck(channels_in, channels_out, kind)
    return nn.Sequential(first, *(Bottleneck(channels_out, channels_out) for _ in range(depth - 1)))
