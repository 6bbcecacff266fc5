"""Pre-norm transformer over image tokens, with full attention (SDPA) and axial rotary positions.

Shapes: B batch, H heads, N tokens, C channels per head, D width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from semhitok.nn.rotary import apply_rotary


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = rearrange(self.qkv(x_BND), "b n (three h c) -> three b h n c", three=3, h=self.heads)
        q, k = apply_rotary(q, rotary), apply_rotary(k, rotary)
        if q.device.type == "cpu":  # the CPU kernel is three times slower in bf16 than in fp32, forward and backward
            q, k, v = q.float(), k.float(), v.float()
        mixed_BHNC = F.scaled_dot_product_attention(q, k, v)
        return self.out(rearrange(mixed_BHNC, "b h n c -> b n (h c)").to(x_BND.dtype))


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        return self.out(F.gelu(self.up(x_BND), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(self, x_BND: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        x_BND = x_BND + self.attention(self.attention_norm(x_BND), rotary)
        return x_BND + self.feed_forward(self.feed_forward_norm(x_BND))


class Transformer(nn.Module):
    """A stack of blocks and a final LayerNorm: (B,N,D) -> (B,N,D).

    Args:
        layers: number of blocks.
        width: channels D, a multiple of heads.
        heads: attention heads; width / heads a multiple of 4 (rotary positions on two axes).
    """

    def __init__(self, *, layers: int, width: int, heads: int) -> None:
        super().__init__()
        if width % heads or (width // heads) % 4:
            raise ValueError(f"width {width} must split into {heads} heads of a multiple of 4 channels")
        self.head_dim = width // heads
        self.blocks: Iterable[Block] = nn.ModuleList(Block(width, heads) for _ in range(layers))  # pyright: ignore
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BND: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        for block in self.blocks:
            x_BND = block(x_BND, rotary)
        return self.norm(x_BND)

    def residual_outputs(self) -> list[nn.Linear]:
        """The linear layers that write to the residual stream, in order."""
        return [layer for block in self.blocks for layer in (block.attention.out, block.feed_forward.out)]
