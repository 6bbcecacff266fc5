"""Attention projection against torch's attention, whose heads are averaged or joined by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semhitok.nn.attention_projection import AttentionProjection, ProjectingAttention


def randomised(module: Any) -> Any:
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def joined_heads(attention: ProjectingAttention, x_BND: Tensor, heads: int) -> Tensor:
    """(B,N,inner): all heads side by side, before the last layer, by torch's own attention."""
    inner = attention.query.out_features
    out, _ = F.multi_head_attention_forward(
        *(x_BND.transpose(0, 1) @ torch.eye(x_BND.shape[2], inner),) * 3,
        embed_dim_to_check=inner,
        num_heads=heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([attention.query.bias, torch.zeros(inner), attention.value.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=torch.eye(inner),
        out_proj_bias=torch.zeros(inner),
        use_separate_proj_weight=True,
        q_proj_weight=_square(attention.query.weight),
        k_proj_weight=_square(attention.key.weight),
        v_proj_weight=_square(attention.value.weight),
    )
    return out.transpose(0, 1)


def _square(weight: Tensor) -> Tensor:
    """Columns of zeros for inputs that the narrow side does not have."""
    return F.pad(weight, (0, len(weight) - weight.shape[1]))


@pytest.mark.parametrize("heads", [6, 3, 2, 1])
def test_going_down_averages_heads_and_then_neighbouring_channels(heads: int):
    attention, x_BND = randomised(ProjectingAttention(24, 4, heads)), torch.randn(2, 7, 24)
    mixed = torch.stack(joined_heads(attention, x_BND, heads).chunk(heads, dim=-1)).mean(0)
    expected = attention.out(F.adaptive_avg_pool1d(mixed, 4))
    torch.testing.assert_close(attention(x_BND), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads", [6, 3, 1])
def test_going_up_joins_heads(heads: int):
    attention, x_BND = randomised(ProjectingAttention(4, 24, heads)), torch.randn(2, 7, 4)
    expected = attention.out(joined_heads(attention, x_BND, heads))
    torch.testing.assert_close(attention(x_BND), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("channels_in", "channels_out"), [(24, 4), (4, 24)])
def test_linear_path_attention_and_feed_forward_add_up(channels_in: int, channels_out: int):
    projection = randomised(AttentionProjection(channels_in, channels_out, 6))
    x_BND = 0.01 * torch.randn(2, 7, channels_in)  # so small that the norms' epsilons, torch's 1e-5, show
    norms = (projection.linear_norm, projection.attention_norm)
    linear_in, attention_in = (F.layer_norm(x_BND, (channels_in,), norm.weight, norm.bias, 1e-5) for norm in norms)
    y_BNE = projection.linear(linear_in) + projection.attention(attention_in)
    norm = projection.feed_forward_norm
    expected = y_BNE + projection.feed_forward(F.layer_norm(y_BNE, (channels_out,), norm.weight, norm.bias, 1e-5))
    torch.testing.assert_close(projection(x_BND), expected, atol=1e-6, rtol=1e-6)


def test_keys_have_no_bias():
    attention = ProjectingAttention(24, 4, 6)
    assert {name for name, _ in attention.named_parameters() if name.endswith("bias")} == {
        "query.bias",
        "value.bias",
        "out.bias",
    }


@pytest.mark.parametrize(("channels_in", "channels_out", "heads"), [(24, 4, 5), (24, 4, 12), (24, 5, 1), (4, 24, 0)])
def test_heads_that_do_not_fit(channels_in: int, channels_out: int, heads: int):
    with pytest.raises(ValueError, match=f"{heads} heads do not project {channels_in} to {channels_out} channels"):
        AttentionProjection(channels_in, channels_out, heads)
