"""Tiny text tokenizers of every kind that language models have, learned from a few words, and chat templates."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

from transformers import PreTrainedTokenizerFast

from semhitok.runs.language_models import CHAT_TEMPLATE, train_bpe
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

WORDS = (
    "what is there a red cat and the blue dog yes no two user assistant system USER ASSISTANT use r im start end think says "
    "image pad hello world and. what? : \n"
)
TEXTS = [WORDS, WORDS.lower(), "".join(map(chr, range(33, 127))), "user: what is there\nassistant: a cat\n"] * 4
CHATML = [f"<|im_{side}|>" for side in ("start", "end")]


def byte_level() -> PreTrainedTokenizerFast:
    """GPT-2, Qwen2: control tokens beyond the vocabulary of the model, and thoughts that are added tokens, but not special."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens(["<|endoftext|>", *CHATML, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"])
    backend.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def unigram() -> PreTrainedTokenizerFast:
    """SentencePiece's Unigram: control tokens are pieces of the vocabulary; a space before the first word alone."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=180, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return _with_beginning(backend)


def llama(prepend: str = "normalizer") -> PreTrainedTokenizerFast:
    """Llama and Vicuna: BPE with a space put before every text between control tokens, no words, bytes for what is unknown."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")  # learned from words
    special = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    trainer = trainers.BpeTrainer(vocab_size=520, special_tokens=special, show_progress=False)
    backend.train_from_iterator([text.replace("\n", " ") for text in TEXTS], trainer)
    state = json.loads(backend.to_str())
    state["added_tokens"] = state["added_tokens"][:3]  # bytes are in the vocabulary only
    state["pre_tokenizer"] = None
    backend = Tokenizer.from_str(json.dumps(state))
    if prepend == "normalizer":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _with_beginning(backend)


def word_piece() -> PreTrainedTokenizerFast:
    """BERT's: words in lower case and their pieces."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[SEP]", "bos_token": "[CLS]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def word_level() -> PreTrainedTokenizerFast:
    """One id for a word, control tokens among them."""
    special = ["<pad>", "<end>", "<unk>", "<begin>"]
    words = {word: index for index, word in enumerate(dict.fromkeys([*special, *WORDS.split(), "user:", "assistant:"]))}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "eos_token": "<end>", "unk_token": "<unk>", "bos_token": "<begin>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def _with_beginning(backend: Tokenizer) -> PreTrainedTokenizerFast:
    begin = ("<s>", backend.token_to_id("<s>"))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[begin])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte-level": byte_level,
    "unigram": unigram,
    "llama": llama,
    "llama, first": lambda: llama("first"),
    "llama, always": lambda: llama("always"),
    "word pieces": word_piece,
    "words": word_level,
    "learned": lambda: train_bpe(TEXTS, 320),
}


@cache
def made(kind: str) -> PreTrainedTokenizerFast:
    """One for each kind; its template must not be changed."""
    return KINDS[kind]()


CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VICUNA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}{{ 'ASSISTANT: ' + message['content'] }}"
    "{{ eos_token }}{% else %}{{ message['role'] | upper }}: {{ message['content'] + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# The prompt ends with a space, which most text tokenizers would join to the first word of the answer, and nothing ends a turn.
JOINING_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ' says ' + message['content'] | trim }}{{ ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant says ' }}{% endif %}"
)
# Qwen3: all but the last answer lose their thoughts, and an answer without thoughts gets empty ones while it is the last.
THINKING_TEMPLATE = (
    "{% for message in messages %}{% set content = message['content'] %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% if loop.last %}{{ '<think>\n' + (thought if '</think>' in content else '') + '\n</think>\n\n' }}{% endif %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{{ content }}{% else %}{{ content }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOLD_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] | trim + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {
    "own or default": None,
    "chatml": CHATML_TEMPLATE,
    "vicuna": VICUNA_TEMPLATE,
    "joining": JOINING_TEMPLATE,
    "thinking": THINKING_TEMPLATE,
    "told": TOLD_TEMPLATE,
    "learned": CHAT_TEMPLATE,
}
