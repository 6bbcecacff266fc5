"""Initial attention of a small language model: the heads of its first layer look at the tokens right before.

To answer from a text, a token must first know its predecessors ("left" whose subject is "dog"), and a second layer must then
find it by them. Neither helps without the other, and a small model on little data may stay at chance for as long as it is
trained. With rotary positions the biases of queries and keys alone can give a head its place: with biases

    q_i = a (cos n w_i, -sin n w_i),   k_i = a (1, 0)          for the fastest frequencies w_i

the logit of key position s for query position t is a^2 sum_i cos((t - s - n) w_i) / sqrt(d), largest where s = t - n. The heads are
trained like all others afterwards.
"""

from __future__ import annotations

from typing import Any

import torch

PEAK = 3.5  # logit of the place above that of the neighbouring ones: 95 % of the attention
FREQUENCIES = 10  # the fastest; slower ones hardly differ among neighbours
CONTENT = 0.05  # factor on the weights of queries and keys, whose random logits would hide the place


@torch.no_grad()
def look_back(language_model: Any) -> None:
    """Let head h of the first layer begin by attending to the token h + 1 places back.

    Args:
        language_model: a causal language model in the layout of Qwen2: rotary positions, queries and keys with biases.

    Raises:
        ValueError: queries and keys have no biases.
    """
    config, attention = language_model.config, language_model.model.layers[0].self_attn
    if attention.q_proj.bias is None or attention.k_proj.bias is None:
        raise ValueError(f"look_back needs queries and keys with biases, {config.model_type} has none")
    size = attention.head_dim
    half = size // 2
    w_H = config.rope_parameters["rope_theta"] ** (-torch.arange(half) * 2 / size)
    used_H = torch.arange(half) < FREQUENCIES
    scale_H = used_H * (PEAK * size**0.5 / (1 - torch.cos(w_H[used_H])).sum()).sqrt()
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight.mul_(CONTENT)
    attention.k_proj.bias.copy_(torch.cat([scale_H, torch.zeros(half)]).repeat(config.num_key_value_heads))
    places = range(1, config.num_attention_heads + 1)
    queries = [torch.cat([torch.cos(n * w_H), -torch.sin(n * w_H)]) * scale_H.repeat(2) for n in places]
    attention.q_proj.bias.copy_(torch.cat(queries))
