"""Attention and blocks against torch's own layers, and rotary attention against a plain computation."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semhitok.nn import Transformer, axial_rotary
from semhitok.nn.transformer import Attention


def nowhere(tokens: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Rotary positions that turn nothing."""
    return torch.ones(tokens, head_dim // 2), torch.zeros(tokens, head_dim // 2)


def shaken(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return module


def test_without_positions_attention_is_torchs():
    torch.manual_seed(0)
    attention, x = Attention(24, 3), torch.randn(2, 5, 24)
    shaken(attention)
    reference = nn.MultiheadAttention(24, 3, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(attention.qkv.weight)
        reference.in_proj_bias.copy_(attention.qkv.bias)
    reference.out_proj.load_state_dict(attention.out.state_dict())
    torch.testing.assert_close(attention(x, nowhere(5, 8)), reference(x, x, x, need_weights=False)[0])


def test_rotary_attention_token_by_token():
    torch.manual_seed(0)
    width, heads, rows, columns = 16, 2, 2, 3
    dim, tokens = width // heads, rows * columns
    attention, x = Attention(width, heads), torch.randn(1, tokens, width)
    shaken(attention)

    def turned(vector: Tensor, token: int) -> list[complex]:
        angles = []
        for position in divmod(token, columns):
            angles += [position * 100.0 ** (-pair / (dim // 4)) for pair in range(dim // 4)]
        pairs = zip(vector[: dim // 2].tolist(), vector[dim // 2 :].tolist(), strict=True)
        return [complex(a, b) * cmath.exp(1j * angle) for (a, b), angle in zip(pairs, angles, strict=True)]

    mixed = torch.zeros(tokens, width)
    qkv = attention.qkv(x)[0].detach()
    for head in range(heads):
        part = slice(head * dim, (head + 1) * dim)
        q, k, v = (qkv[:, start * width : (start + 1) * width][:, part] for start in range(3))
        for i in range(tokens):
            here = turned(q[i], i)
            scores = [
                sum((a * b.conjugate()).real for a, b in zip(here, turned(k[j], j), strict=True)) / math.sqrt(dim)
                for j in range(tokens)
            ]
            exponentials = [math.exp(score - max(scores)) for score in scores]
            for j in range(tokens):
                mixed[i, part] += exponentials[j] / sum(exponentials) * v[j]
    expected = F.linear(mixed, attention.out.weight, attention.out.bias)
    torch.testing.assert_close(attention(x, axial_rotary(rows, columns, dim))[0], expected, atol=1e-5, rtol=1e-5)


def test_without_positions_the_stack_is_torchs_pre_norm_encoder():
    torch.manual_seed(0)
    transformer = Transformer(layers=2, width=16, heads=2)
    shaken(transformer)
    layer = nn.TransformerEncoderLayer(
        16, 2, 64, dropout=0.0, activation=lambda x: F.gelu(x, approximate="tanh"), batch_first=True, norm_first=True
    )
    reference = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(16), enable_nested_tensor=False)
    names = {
        "attention_norm": "norm1",
        "feed_forward_norm": "norm2",
        "attention.out": "self_attn.out_proj",
        "attention.qkv.": "self_attn.in_proj_",
        "feed_forward.up": "linear1",
        "feed_forward.out": "linear2",
        "blocks": "layers",
    }
    state = {}
    for name, tensor in transformer.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = tensor
    reference.load_state_dict(state)
    x = torch.randn(2, 6, 16)
    torch.testing.assert_close(transformer(x, nowhere(6, 8)), reference(x), atol=1e-5, rtol=1e-5)


def test_every_token_sees_every_other_and_order_is_told_by_positions_only():
    torch.manual_seed(0)
    transformer, x = Transformer(layers=1, width=16, heads=2), torch.randn(1, 6, 16)
    shaken(transformer)
    rotary, order = axial_rotary(2, 3, 8), torch.randperm(6)
    found = transformer(x, rotary)
    moved = transformer(x[:, order], (rotary[0][order], rotary[1][order]))
    torch.testing.assert_close(moved, found[:, order], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(transformer(x[:, order], rotary), found[:, order], atol=1e-2)
    other = x.clone()
    other[:, 5] = torch.randn(16)
    assert ((transformer(other, rotary) - found).abs().amax(-1) > 1e-4).all()


def test_residual_outputs_are_all_that_a_block_adds():
    torch.manual_seed(0)
    transformer, x = Transformer(layers=3, width=16, heads=2), torch.randn(1, 6, 16)
    shaken(transformer)
    outputs = transformer.residual_outputs()
    assert [outputs.index(block.attention.out) for block in transformer.blocks] == [0, 2, 4]
    for layer in outputs:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert torch.equal(transformer(x, axial_rotary(2, 3, 8)), transformer.norm(x))


def test_bf16_weights_give_bf16():
    transformer = Transformer(layers=1, width=16, heads=2).to(torch.bfloat16)
    x = torch.randn(1, 6, 16)
    found = transformer(x.bfloat16(), axial_rotary(2, 3, 8))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), transformer.float()(x, axial_rotary(2, 3, 8)), atol=0.1, rtol=0.1)


@pytest.mark.parametrize(("width", "heads"), [(18, 4), (12, 2), (10, 1)])
def test_refuses_heads_that_do_not_split_the_width(width: int, heads: int):
    with pytest.raises(ValueError, match=f"width {width} must split into {heads} heads"):
        Transformer(layers=1, width=width, heads=heads)
