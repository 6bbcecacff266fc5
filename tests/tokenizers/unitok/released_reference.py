"""What a released state computes, from the published definitions: functions on a dictionary of tensors, no modules.

Shapes: B images, N tokens, C channels, H heads, D channels a head.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from einops import rearrange
from tests.tokenizers.unitok.released import Sizes
from torch import Tensor
from torch.nn import functional as F

State = Mapping[str, Tensor]


def encode(state: State, images: Tensor, sizes: Sizes, prefix: str = "encoder.") -> Tensor:
    """Images (B,3,16h,16w) -> tokens (B,hw,C) after the encoder's last norm."""
    backbone = f"{prefix}patch_embed.backbone."
    x = _conv(state, f"{backbone}stem.conv1", images, stride=2)
    x = _conv(state, f"{backbone}stem.conv2", F.gelu(_norm2d(state, f"{backbone}stem.norm1", x)))
    for stage, depth in enumerate(sizes.depths):
        for block in range(depth):
            x = _down_block(state, f"{backbone}stages.{stage}.{block}.", x, stride=2 if block == 0 else 1)
    x = _conv(state, f"{backbone}pool.proj", _norm2d(state, f"{backbone}pool.norm", x), stride=2)
    tokens = _blocks(state, f"{prefix}blocks.", rearrange(x, "b c h w -> b (h w) c"), sizes)
    return _norm(state, f"{prefix}norm", tokens) if f"{prefix}norm.weight" in state else tokens


def project(state: State, prefix: str, x: Tensor) -> Tensor:
    """Attention projection (B,N,C) -> (B,N,C'): heads are averaged on the way down and joined on the way up."""
    outs, ins = state[f"{prefix}proj.weight"].shape
    heads = max(ins, outs) // min(ins, outs)
    bias = torch.cat([state[f"{prefix}attn.{name}"] for name in ("q_bias", "zero_k_bias", "v_bias")])
    y = F.linear(_norm(state, f"{prefix}norm1", x, 1e-5), state[f"{prefix}attn.qkv.weight"], bias)
    y = _attention(y, heads)
    y = y.mean(dim=1) if ins > outs else rearrange(y, "b h n d -> b n (h d)")
    x = _linear(state, f"{prefix}proj", _norm(state, f"{prefix}norm3", x, 1e-5))
    x = x + _linear(state, f"{prefix}attn.proj", y)
    return x + _geglu(state, f"{prefix}mlp.", _norm(state, f"{prefix}norm2", x, 1e-5))


def quantize(state: State, features: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Features (B,N,width) -> ids (B,N,codebooks) and normalised codes (B,N,width)."""
    ids, codes = [], []
    for number, part in enumerate(features.chunk(sizes.codebooks, dim=-1)):
        book = F.normalize(state[f"quantizer.codebooks.{number}.codebook.weight"], dim=-1)
        ids.append((F.normalize(part, dim=-1) @ book.T).argmax(dim=-1))
        codes.append(book[ids[-1]])
    return torch.stack(ids, dim=-1), torch.cat(codes, dim=-1)


def decode(state: State, tokens: Tensor, grid: tuple[int, int], sizes: Sizes) -> Tensor:
    """Tokens (B,N,C) -> images (B,3,16h,16w)."""
    x = _norm(state, "decoder.norm", _blocks(state, "decoder.blocks.", tokens, sizes))
    x = rearrange(x, "b (h w) c -> b c h w", h=grid[0])
    x = _up(state, "decoder.up_conv1", x)
    for name, depth in (("up_conv2", 4), ("up_conv3", 2)):
        for block in range(depth):
            x = _up_block(state, f"decoder.{name}.{block}.", x, up=block == 0)
    x = F.gelu(_norm2d(state, "decoder.up_conv4.norm1", _up(state, "decoder.up_conv4.conv1", x)))
    return _conv(state, "decoder.up_conv4.conv2", x)


def image_embedding(state: State, tokens: Tensor) -> Tensor:
    """Tokens (B,N,C) after the up-projection -> (B,E) of length one."""
    return F.normalize(_linear(state, "projection", _norm(state, "fc_norm", tokens.mean(dim=1))), dim=-1)


def text_embedding(state: State, ids: Tensor, sizes: Sizes, prefix: str = "text_encoder.") -> Tensor:
    """Text ids (B,N), padded after the end token -> (B,E) of length one."""
    length = ids.shape[1]
    x = state[f"{prefix}token_embedding.weight"][ids] + state[f"{prefix}positional_embedding"][:length]
    for number in range(sizes.text_layers):
        name = f"{prefix}transformer.resblocks.{number}."
        y = _norm(state, f"{name}ln_1", x, 1e-5)
        y = F.linear(y, state[f"{name}attn.in_proj_weight"], state[f"{name}attn.in_proj_bias"])
        y = rearrange(_attention(y, sizes.text_heads, causal=True), "b h n d -> b n (h d)")
        x = x + _linear(state, f"{name}attn.out_proj", y)
        y = F.gelu(_linear(state, f"{name}mlp.c_fc", _norm(state, f"{name}ln_2", x, 1e-5)))
        x = x + _linear(state, f"{name}mlp.c_proj", y)
    x = _norm(state, f"{prefix}ln_final", x, 1e-5)
    pooled = x[torch.arange(len(x)), ids.argmax(dim=-1)]  # the end token has the highest id
    return F.normalize(pooled @ state[f"{prefix}text_projection"], dim=-1)


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _norm(state: State, name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def _norm2d(state: State, name: str, x: Tensor) -> Tensor:
    return rearrange(_norm(state, name, rearrange(x, "b c h w -> b h w c")), "b h w c -> b c h w")


def _conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, state[f"{name}.bias"], stride, weight.shape[-1] // 2, groups=groups)


def _geglu(state: State, prefix: str, x: Tensor) -> Tensor:
    x = _norm(state, f"{prefix}norm", x)
    gate = F.gelu(_linear(state, f"{prefix}w0", x), approximate="tanh")
    return _linear(state, f"{prefix}w2", gate * _linear(state, f"{prefix}w1", x))


def _attention(qkv: Tensor, heads: int, causal: bool = False) -> Tensor:
    """Fused (B,N,3HD) -> (B,H,N,D), written out."""
    q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=heads)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores[0, 0]).triu(1).bool(), float("-inf"))
    return scores.softmax(dim=-1) @ v


def _blocks(state: State, prefix: str, x: Tensor, sizes: Sizes) -> Tensor:
    for number in range(sizes.blocks):
        name = f"{prefix}{number}."
        y = _attention(_linear(state, f"{name}attn.qkv", _norm(state, f"{name}norm1", x)), sizes.channels // 64)
        x = x + _linear(state, f"{name}attn.proj", rearrange(y, "b h n d -> b n (h d)"))
        x = x + _geglu(state, f"{name}mlp.", _norm(state, f"{name}norm2", x))
    return x


def _down_block(state: State, prefix: str, x: Tensor, stride: int) -> Tensor:
    shortcut = x
    if stride == 2:
        shortcut = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        if f"{prefix}shortcut.expand.weight" in state:
            shortcut = _conv(state, f"{prefix}shortcut.expand", shortcut)
    x = F.gelu(_conv(state, f"{prefix}conv1_1x1", _norm2d(state, f"{prefix}pre_norm", x)))
    x = F.gelu(_conv(state, f"{prefix}conv2_kxk", x, stride))
    return _conv(state, f"{prefix}conv3_1x1", x) + shortcut


def _up_block(state: State, prefix: str, x: Tensor, up: bool) -> Tensor:
    shortcut = _up(state, f"{prefix}shortcut", x) if up else x
    x = F.gelu(_conv(state, f"{prefix}conv1_1x1", _norm2d(state, f"{prefix}pre_norm", x)))
    if up:
        x = _up(state, f"{prefix}up", x)
    x = F.gelu(_conv(state, f"{prefix}conv2_kxk", x))
    return _conv(state, f"{prefix}conv3_1x1", x) + shortcut


def _up(state: State, prefix: str, x: Tensor) -> Tensor:
    return _conv(state, f"{prefix}.conv", F.interpolate(x, scale_factor=2, mode="nearest"))
