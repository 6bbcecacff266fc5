"""Heads that begin by looking back attend where they should, before anything is trained."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from semhitok.mllm.look_back import look_back
from semhitok.recipes.language_recipe import SmallLanguageModel
from semhitok.runs.language_models import small_language_model


class TextTokenizer:
    eos_token_id, pad_token_id = 1, 0

    def __len__(self) -> int:
        return 50


@pytest.mark.parametrize(("heads", "key_value_heads"), [(6, 6), (4, 2)])
def test_head_h_attends_h_plus_1_tokens_back(heads: int, key_value_heads: int):
    torch.manual_seed(0)
    size = SmallLanguageModel(layers=2, heads=heads, key_value_heads=key_value_heads, look_back=True)
    model = small_language_model(size, TextTokenizer())
    model.set_attn_implementation("eager")
    ids = torch.randint(2, 50, (3, 40))
    first, second = model(ids, output_attentions=True).attentions
    for head in range(heads):
        place = first[:, head].diagonal(-1 - head, dim1=1, dim2=2)[
            :, heads:
        ]  # the first positions have nowhere to look
        assert place.min() > 0.6
        assert place.mean() > 0.9
    assert second.diagonal(-1, dim1=2, dim2=3).mean() < 0.3  # other layers are as they were
    plain = small_language_model(SmallLanguageModel(layers=2), TextTokenizer())
    assert not plain.model.layers[0].self_attn.q_proj.bias.any()


def test_a_language_model_without_biases_is_refused():
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(ValueError, match="look_back needs queries and keys with biases, llama has none"):
        look_back(LlamaForCausalLM(config))
