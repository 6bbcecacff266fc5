"""Attention projection (UniTok, arXiv 2502.20321, section 3.3): to and from the narrow space in which tokens are quantized.

A linear map of each token alone loses what the narrow space cannot hold; here tokens attend to each other while they are
projected. Going down, the heads are averaged to the narrow width; going up, they are concatenated.

Shapes: B batch, N tokens, D channels in, E channels out, G heads, C channels per head.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from semhitok.nn.vitamin import GatedFeedForward


class ProjectingAttention(nn.Module):
    """Self-attention from D to E channels; queries and values have a bias, keys have none.

    Raises:
        ValueError: see ``AttentionProjection``.
    """

    def __init__(self, channels_in: int, channels_out: int, heads: int) -> None:
        super().__init__()
        inner, narrow = max(channels_in, channels_out), min(channels_in, channels_out)
        if heads < 1 or inner % (heads * narrow):
            raise ValueError(
                f"{heads} heads do not project {channels_in} to {channels_out} channels: heads times {narrow} must divide "
                f"{inner}"
            )
        self.heads, self.channels_out, self.averages = heads, channels_out, channels_out < channels_in
        self.query = nn.Linear(channels_in, inner)
        self.key = nn.Linear(channels_in, inner, bias=False)
        self.value = nn.Linear(channels_in, inner)
        self.out = nn.Linear(channels_out, channels_out)

    def forward(self, x_BND: Tensor) -> Tensor:
        q, k, v = (
            rearrange(project(x_BND), "b n (g c) -> b g n c", g=self.heads)
            for project in (self.query, self.key, self.value)
        )
        mixed_BGNC = F.scaled_dot_product_attention(q, k, v)
        if self.averages:
            return self.out(reduce(mixed_BGNC, "b g n (e pool) -> b n e", "mean", e=self.channels_out))
        return self.out(rearrange(mixed_BGNC, "b g n c -> b n (g c)"))


class AttentionProjection(nn.Module):
    """(B,N,D) -> (B,N,E): a linear projection plus projecting attention, then a gated feed-forward layer.

    Args:
        channels_in, channels_out: D and E; the smaller divides the larger.
        heads: usually the larger of the two divided by the smaller, so that a head is as wide as the narrow space. With
            fewer, heads are wider, and neighbouring channels are averaged as well when going down.

    Raises:
        ValueError: heads times the smaller of the two does not divide the larger.
    """

    def __init__(self, channels_in: int, channels_out: int, heads: int) -> None:
        super().__init__()
        self.linear_norm = nn.LayerNorm(channels_in)
        self.linear = nn.Linear(channels_in, channels_out)
        self.attention_norm = nn.LayerNorm(channels_in)
        self.attention = ProjectingAttention(channels_in, channels_out, heads)
        self.feed_forward_norm = nn.LayerNorm(channels_out)
        self.feed_forward = GatedFeedForward(channels_out)

    def forward(self, x_BND: Tensor) -> Tensor:
        y_BNE = self.linear(self.linear_norm(x_BND)) + self.attention(self.attention_norm(x_BND))
        return y_BNE + self.feed_forward(self.feed_forward_norm(y_BNE))
