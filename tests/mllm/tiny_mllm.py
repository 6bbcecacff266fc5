"""Tiny language models, a text tokenizer, an image tokenizer of several codes per token, and models made of them."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from einops import rearrange
from tests.tiny import shake, tiny_model
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.tokenizers import SemHiTokModel
from semhitok.types import Embedded, Encoded
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["a", "the", "red", "blue", "big", "cat", "dog", "house", "and", "is", "there", "what", "draw", "two"]
TEXT_SIZE = 64  # more than the text tokenizer has: padded, as released models are
CONTEXT = 160
SIZES: dict[str, Any] = {
    "vocab_size": TEXT_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
LANGUAGE_MODELS = {
    "qwen2, tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen2, untied": Qwen2Config(**SIZES, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=True),
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=True),
}


def language_model(name: str = "qwen2, tied", **changes: Any) -> PreTrainedModel:
    """Random weights, large enough that the choices are clear."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = type(LANGUAGE_MODELS[name])(**(LANGUAGE_MODELS[name].to_dict() | changes))
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
        shake(model, 0.2)
    return model


def text_tokenizer(*extra: str, bos: bool = False) -> PreTrainedTokenizerFast:
    """One id for a word; 0 pads, 1 ends, 2 is unknown, 3 begins; ``extra`` are further special tokens."""
    special = ["<pad>", "<end>", "<unk>", "<begin>"]
    words = {word: index for index, word in enumerate([*special, *WORDS])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        from tokenizers.processors import TemplateProcessing

        backend.post_processor = TemplateProcessing(single="<begin> $A", special_tokens=[("<begin>", 3)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", bos_token="<begin>"
    )
    if extra:
        tokenizer.add_special_tokens({"additional_special_tokens": list(extra)})
    return tokenizer


@cache
def image_tokenizer() -> SemHiTokModel:
    """32 px, 16 tokens, 64 ids; shared, as nothing may change it."""
    return tiny_model()


class CodesConfig(PreTrainedConfig):
    """16 px, 4 tokens of 3 codes with 5 ids each."""

    model_type = "semhitok_test_codes"
    image_size, patch_size, vocab_size, codes_per_token, width = 16, 8, 5, 3, 6

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return height // self.patch_size, width // self.patch_size


class CodesTokenizer(PreTrainedModel):
    """Several codes per token, under the protocol: each of 3 channels' mean, in 5 steps."""

    config_class = CodesConfig
    base_model_prefix = ""

    def __init__(self, config: CodesConfig) -> None:
        super().__init__(config)
        self.table_CVD = nn.Parameter(torch.zeros(3, 5, 2))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if module is self:
            nn.init.normal_(self.table_CVD)

    vocab_size, codes_per_token = 5, 3
    num_tokens = 4

    def encode(self, pixel_values: Tensor) -> Encoded:
        patches = rearrange(pixel_values, "b c (r p) (s q) -> b (r s) c (p q)", p=8, q=8).mean(dim=-1)
        return Encoded(ids=((patches + 1) / 2 * 5).long().clamp(0, 4), grid=(2, 2))

    def decode(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        rows, columns = grid or (math.isqrt(ids.shape[1]),) * 2
        means = (ids.float() + 0.5) / 5 * 2 - 1
        image = rearrange(means, "b (r s) c -> b c r s", r=rows, s=columns)
        return image.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)

    def embed(self, ids: Tensor) -> Embedded:
        assert ids.ndim == 3
        codes = [self.table_CVD[place][ids[..., place]] for place in range(3)]
        return Embedded(semantic=None, pixel=torch.cat(codes, dim=-1))


AutoConfig.register(CodesConfig.model_type, CodesConfig, exist_ok=True)
AutoModel.register(CodesConfig, CodesTokenizer, exist_ok=True)


def codes_tokenizer() -> CodesTokenizer:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return CodesTokenizer(CodesConfig()).eval()


def mllm(
    name: str = "qwen2, tied", tokenizer: PreTrainedModel | None = None, *, text: Any = None, **options: Any
) -> SemHiTokForConditionalGeneration:
    """Joined, with a shaken head: the mean of the text rows draws the same id everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = SemHiTokForConditionalGeneration.from_language_model(
            language_model(name), tokenizer or tiny_model(), text_tokenizer=text, **options
        )
        with torch.no_grad():
            model.lm_head.weight[TEXT_SIZE:] += torch.randn_like(model.lm_head.weight[TEXT_SIZE:]) * 0.3
        for part in (model.adapter, model.image_positions):
            if part is not None:
                shake(part, 0.2)
        if model.code_head is not None:
            shake(model.code_head, 0.2)
    return model


def codes_mllm(**options: Any) -> SemHiTokForConditionalGeneration:
    small = {"adapter": "pixel", "code_head_layers": 1, "code_head_width": 16, "code_head_heads": 2}
    return mllm(tokenizer=codes_tokenizer(), **(small | options))


def processor(model: SemHiTokForConditionalGeneration, **options: Any) -> SemHiTokMLLMProcessor:
    return SemHiTokMLLMProcessor.for_config(model.config, text_tokenizer(**options))


def mixed_ids(model: SemHiTokForConditionalGeneration, batch: int = 2, seed: int = 0) -> Tensor:
    """Some text, an image, some text: (batch, 3 + N + 2 + 2)."""
    vocabulary = model.vocabulary
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, vocabulary.image_tokens)
    image = torch.randint(vocabulary.visual_size, shape, generator=generator)
    before = torch.randint(4, 18, (batch, 3), generator=generator)
    after = torch.randint(4, 18, (batch, 2), generator=generator)
    return torch.cat([before, vocabulary.span(image), after], dim=1)
