"""The text side of UniTok: CLIP's text tokenizer, or a small one trained on captions, and the text tower's configuration.

The tower itself is transformers' CLIP text model (Radford et al. 2021, section 2.4) with open_clip's sizes for ViTamin-L. The
text tokenizer is CLIP's byte-level BPE: text is lower-cased and split into words, numbers into digits; a word is spelled in
256 byte symbols, the last one marked ``</w>``, and merged by rank. Ids: 256 bytes, 256 bytes that end a word, one id per
merge, start of text, end of text.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTextConfig, CLIPTokenizer

from tokenizers import Tokenizer

MERGES = Path(__file__).parent / "clip_merges.txt.gz"
START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
CONTEXT_LENGTH = 77
_FIXED = 512 + 2  # bytes, bytes that end a word, start, end


def clip_text_tokenizer() -> CLIPTokenizer:
    """CLIP's text tokenizer: 49,408 ids, start 49,406, end 49,407 (also the padding), 77 ids at most.

    Unlike the original, it does not repair broken encodings, curly quotes and HTML entities.
    """
    lines = gzip.decompress(MERGES.read_bytes()).decode().splitlines()
    return _text_tokenizer([(left, right) for left, right in map(str.split, lines)], CONTEXT_LENGTH)


def train_text_tokenizer(
    captions: Iterable[str], vocab_size: int = 2048, *, context_length: int = CONTEXT_LENGTH
) -> CLIPTokenizer:
    """A CLIP text tokenizer with merges learned from captions; a deterministic function of these.

    Args:
        captions: texts in any case; iterated once.
        vocab_size: maximum number of ids. Captions with few words give fewer, see ``len(text_tokenizer)``.
        context_length: maximum number of ids of a text, including start and end; longer texts are truncated.

    Raises:
        ValueError: vocab_size leaves no room for a merge, context_length none for a token, or no caption has a word.
    """
    if vocab_size <= _FIXED:
        raise ValueError(
            f"vocab_size must be at least {_FIXED + 1}, {_FIXED} ids are bytes and marks, got {vocab_size}"
        )
    if context_length < 3:
        raise ValueError(f"context_length must be at least 3 (start, one token, end), got {context_length}")
    # The trainer numbers symbols in the order of a hash map and breaks ties by these numbers; symbols declared as special
    # tokens keep their order, which makes the training reproducible and gives the ids CLIP's layout.
    symbols = _byte_symbols()
    trainer = BpeTrainer(  # pyright: ignore[reportCallIssue]
        vocab_size=vocab_size - 2, special_tokens=symbols, end_of_word_suffix=END_OF_WORD, show_progress=False
    )
    untrained = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(BPE(end_of_word_suffix=END_OF_WORD))
    learner.normalizer, learner.pre_tokenizer = untrained.normalizer, untrained.pre_tokenizer
    learner.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    if not merges:
        raise ValueError("the captions hold no word of two letters, at least one is needed to learn a merge")
    return _text_tokenizer(merges, context_length)


def text_tower_config(
    text_tokenizer: CLIPTokenizer, *, width: int = 768, layers: int = 12, heads: int = 12, embed_dim: int = 768
) -> CLIPTextConfig:
    """Configuration of the text tower that reads this tokenizer's ids; the default sizes are those of UniTok-L.

    Args:
        text_tokenizer: determines the number of ids, the context length and the special ids.
        width: channels; the MLP is four times as wide, with exact GELU as in open_clip.
        layers: transformer layers.
        heads: attention heads.
        embed_dim: E, channels of the space shared by images and texts.
    """
    vocab = text_tokenizer.get_vocab()
    return CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=embed_dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=text_tokenizer.model_max_length,
        hidden_act="gelu",
        bos_token_id=vocab[START],
        eos_token_id=vocab[END],
        pad_token_id=vocab[END],
    )


def _text_tokenizer(merges: list[tuple[str, str]], context_length: int) -> CLIPTokenizer:
    tokens = [*_byte_symbols(), *(left + right for left, right in merges), START, END]
    vocab = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=context_length)  # pyright: ignore


def _byte_symbols() -> list[str]:
    """The 512 symbols in CLIP's order: by code point, first inside a word, then at its end."""
    alphabet = sorted(ByteLevel.alphabet())
    return [*alphabet, *(symbol + END_OF_WORD for symbol in alphabet)]
