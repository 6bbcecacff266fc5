"""ViTamin's blocks against formulas written out and against torch's own attention."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semhitok.nn.vitamin import (
    Bottleneck,
    ChannelNorm,
    Doubling,
    DropPath,
    FullAttention,
    GatedFeedForward,
    Halving,
    InverseStem,
    Stem,
    ViTaminBlock,
)


def randomised(module: Any) -> Any:
    """Biases and norms away from zero and one, so that one left out shows."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def channel_norm(x_BDHW: Tensor, norm: nn.LayerNorm) -> Tensor:
    mean = x_BDHW.mean(1, keepdim=True)
    variance = x_BDHW.var(1, keepdim=True, unbiased=False)
    weight, bias = norm.weight[None, :, None, None], norm.bias[None, :, None, None]
    return (x_BDHW - mean) / (variance + 1e-6).sqrt() * weight + bias


def conv(x_BDHW: Tensor, layer: nn.Conv2d, **options: int) -> Tensor:
    return F.conv2d(x_BDHW, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2, **options)


def exact_gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def test_channel_norm_is_over_the_channels_of_a_pixel():
    norm, x_BDHW = randomised(ChannelNorm(5)), 3 * torch.randn(2, 5, 4, 6) + 1
    torch.testing.assert_close(norm(x_BDHW), channel_norm(x_BDHW, norm))


def test_doubling_repeats_every_pixel_before_the_convolution():
    double, x_BDHW = randomised(Doubling(3, 5)), torch.randn(2, 3, 4, 6)
    repeated = torch.kron(x_BDHW, torch.ones(2, 2))
    torch.testing.assert_close(double(x_BDHW), conv(repeated, double.conv))


def test_halving_averages_what_lies_inside_the_image():
    x_BDHW = torch.arange(16.0).reshape(1, 1, 4, 4)
    expected = torch.tensor(
        [[[[(0 + 1 + 4 + 5) / 4, (1 + 2 + 3 + 5 + 6 + 7) / 6], [(4 + 5 + 8 + 9 + 12 + 13) / 6, 10.0]]]]
    )
    torch.testing.assert_close(Halving(1, 1)(x_BDHW), expected)
    assert not list(Halving(4, 4).parameters())
    wider = randomised(Halving(1, 3))
    torch.testing.assert_close(wider(x_BDHW), conv(expected, wider.expand))


@pytest.mark.parametrize(
    ("scale", "channels_in", "channels_out", "size"),
    [("same", 4, 4, (8, 12)), ("half", 3, 4, (4, 6)), ("half", 4, 4, (4, 6)), ("double", 4, 3, (16, 24))],
)
def test_bottleneck(scale: str, channels_in: int, channels_out: int, size: tuple[int, int]):
    block, x_BDHW = randomised(Bottleneck(channels_in, channels_out, scale)), torch.randn(2, channels_in, 8, 12)
    y = exact_gelu(conv(channel_norm(x_BDHW, block.norm), block.expand))
    if scale == "double":
        y = conv(torch.kron(y, torch.ones(2, 2)), block.up.conv)
    y = exact_gelu(conv(y, block.mix, stride=2 if scale == "half" else 1, groups=4 * channels_out))
    expected = conv(y, block.project) + block.shortcut(x_BDHW)
    assert expected.shape[-2:] == size
    torch.testing.assert_close(block(x_BDHW), expected, atol=1e-5, rtol=1e-5)


def test_stems_halve_and_double():
    stem, inverse = randomised(Stem(6)), randomised(InverseStem(6))
    images = torch.randn(2, 3, 16, 24)
    half = F.conv2d(images, stem.reduce.weight, stem.reduce.bias, stride=2, padding=1)
    expected = conv(exact_gelu(channel_norm(half, stem.norm)), stem.refine)
    assert expected.shape == (2, 6, 8, 12)
    torch.testing.assert_close(stem(images), expected, atol=1e-5, rtol=1e-5)
    large = conv(torch.kron(expected, torch.ones(2, 2)), inverse.enlarge.conv)
    drawn = conv(exact_gelu(channel_norm(large, inverse.norm)), inverse.draw)
    torch.testing.assert_close(inverse(expected), drawn, atol=1e-5, rtol=1e-5)
    assert drawn.shape == images.shape


def test_attention_is_torchs():
    attention, reference = randomised(FullAttention(12, 3)), nn.MultiheadAttention(12, 3, batch_first=True)
    reference.in_proj_weight.data, reference.in_proj_bias.data = attention.qkv.weight.data, attention.qkv.bias.data
    reference.out_proj.load_state_dict(attention.out.state_dict())
    x_BND = torch.randn(2, 7, 12)
    torch.testing.assert_close(attention(x_BND), reference(x_BND, x_BND, x_BND)[0], atol=1e-5, rtol=1e-5)


def test_gate_of_the_feed_forward_is_the_tanh_gelu():
    layer, x_BND = randomised(GatedFeedForward(6)), 4 * torch.randn(2, 5, 6)
    normed = F.layer_norm(x_BND, (6,), layer.norm.weight, layer.norm.bias, 1e-6)
    gate = normed @ layer.gate.weight.T + layer.gate.bias
    gate = 0.5 * gate * (1 + torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
    hidden = gate * (normed @ layer.up.weight.T + layer.up.bias)
    expected = hidden @ layer.out.weight.T + layer.out.bias
    assert hidden.shape[-1] == 12
    torch.testing.assert_close(layer(x_BND), expected, atol=1e-6, rtol=1e-5)


def test_block_adds_two_branches_and_knows_no_positions():
    block, x_BND = randomised(ViTaminBlock(8, 2, 0.0)), torch.randn(2, 9, 8)
    y_BND = x_BND + block.attention(block.attention_norm(x_BND))
    expected = y_BND + block.feed_forward(block.feed_forward_norm(y_BND))
    torch.testing.assert_close(block(x_BND), expected)
    order = torch.randperm(9)
    torch.testing.assert_close(block(x_BND[:, order]), expected[:, order], atol=1e-5, rtol=1e-5)


def test_drop_path_leaves_out_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop, branch = DropPath(0.3), torch.ones(20_000, 2, 3)
    assert torch.equal(drop.eval()(branch), branch)
    kept = drop.train()(branch)
    assert kept.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))
    assert float((kept == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.equal(DropPath(0.0).train()(branch), branch)
