"""Blocks of ViTamin (Chen et al. 2024, arXiv 2404.02132), the hybrid of convolutions and a ViT that UniTok builds on.

Convolutional stages halve (encoder) or double (decoder) the resolution with inverted bottlenecks; transformer blocks with
gated feed-forward layers work on the grid in between. There are no position embeddings: the convolutions provide positions.

Shapes: B batch, D channels, H x W resolution, N tokens, G heads, C channels per head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

EPSILON = 1e-6
EXPANSION = 4
"""Width of a bottleneck's middle, relative to its output."""


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel: (B,D,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPSILON)

    def forward(self, input: Tensor) -> Tensor:
        return rearrange(super().forward(rearrange(input, "b d h w -> b h w d")), "b h w d -> b d h w")


class DropPath(nn.Module):
    """Drops a residual branch for a random fraction of the samples in training (stochastic depth, Huang et al. 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        kept = torch.rand(len(branch), *(1,) * (branch.ndim - 1), device=branch.device) >= self.rate
        return branch * kept / (1 - self.rate)


class Doubling(nn.Module):
    """Nearest-neighbour upsampling to twice the resolution, then a 3x3 convolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return self.conv(F.interpolate(x_BDHW, scale_factor=2, mode="nearest"))


class Halving(nn.Module):
    """Shortcut of a block that halves the resolution: 3x3 average pooling, and a 1x1 convolution if widths differ."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return self.expand(F.avg_pool2d(x_BDHW, 3, stride=2, padding=1, count_include_pad=False))


class Bottleneck(nn.Module):
    """Inverted bottleneck with pre-norm: 1x1 expansion, depthwise 3x3, 1x1 projection, residual.

    Args:
        channels_in, channels_out: widths; they may differ only where the resolution changes.
        scale: "same", "half" (strided depthwise convolution) or "double" (upsampling before it).
    """

    def __init__(self, channels_in: int, channels_out: int, scale: str = "same") -> None:
        super().__init__()
        assert scale != "same" or channels_in == channels_out
        middle = EXPANSION * channels_out
        shortcuts = {"same": nn.Identity, "half": Halving, "double": Doubling}
        self.shortcut = shortcuts[scale](channels_in, channels_out)
        self.norm = ChannelNorm(channels_in)
        self.expand = nn.Conv2d(channels_in, middle, 1)
        self.up = Doubling(middle, middle) if scale == "double" else nn.Identity()
        self.mix = nn.Conv2d(middle, middle, 3, stride=2 if scale == "half" else 1, padding=1, groups=middle)
        self.project = nn.Conv2d(middle, channels_out, 1)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        y = self.up(F.gelu(self.expand(self.norm(x_BDHW))))
        return self.shortcut(x_BDHW) + self.project(F.gelu(self.mix(y)))


class Stem(nn.Module):
    """Pixels to features at half the resolution: (B,3,H,W) -> (B,D,H/2,W/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.norm = ChannelNorm(channels)
        self.refine = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.refine(F.gelu(self.norm(self.reduce(pixel_values))))


class InverseStem(nn.Module):
    """Features at half the resolution to pixels: (B,D,H/2,W/2) -> (B,3,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enlarge = Doubling(channels, channels)
        self.norm = ChannelNorm(channels)
        self.draw = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return self.draw(F.gelu(self.norm(self.enlarge(x_BDHW))))


class GatedFeedForward(nn.Module):
    """GeGLU (Shazeer 2020) with its own norm and hidden width 2D: (B,N,D) -> (B,N,D).

    Its GELU is the tanh approximation, as in UniTok's code; the convolutional stages use the exact one.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.gate = nn.Linear(width, 2 * width)
        self.up = nn.Linear(width, 2 * width)
        self.out = nn.Linear(2 * width, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        x_BND = self.norm(x_BND)
        return self.out(F.gelu(self.gate(x_BND), approximate="tanh") * self.up(x_BND))


class FullAttention(nn.Module):
    """Multi-head self-attention over all tokens, without positions: (B,N,D) -> (B,N,D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x_BND), "b n (three g c) -> three b g n c", three=3, g=self.heads)
        if q.device.type == "cpu":  # see nn.transformer: the CPU kernel is slow in bf16
            q, k, v = q.float(), k.float(), v.float()
        mixed_BGNC = F.scaled_dot_product_attention(q, k, v)
        return self.out(rearrange(mixed_BGNC, "b g n c -> b n (g c)").to(x_BND.dtype))


class ViTaminBlock(nn.Module):
    """Pre-norm transformer block with a gated feed-forward layer: (B,N,D) -> (B,N,D)."""

    def __init__(self, width: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=EPSILON)
        self.attention = FullAttention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width, eps=EPSILON)
        self.feed_forward = GatedFeedForward(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BND: Tensor) -> Tensor:
        x_BND = x_BND + self.drop_path(self.attention(self.attention_norm(x_BND)))
        return x_BND + self.drop_path(self.feed_forward(self.feed_forward_norm(x_BND)))
