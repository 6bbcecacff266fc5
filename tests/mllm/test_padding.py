"""Padding and truncation mean what they mean for a text tokenizer, and never cut an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.mllm.tiny_mllm import CONTEXT, mllm, processor, text_tokenizer
from transformers.utils import PaddingStrategy

from semhitok.mllm import SemHiTokMLLMProcessor

TEXTS = ["the red cat", "a dog", "draw two blue house and cat"]
PICTURE = Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def processing() -> SemHiTokMLLMProcessor:
    return processor(mllm())


@pytest.mark.parametrize(
    "options",
    [
        *({"padding": kind} for kind in (True, "longest", PaddingStrategy.LONGEST, False, "do_not_pad")),
        {"padding": PaddingStrategy.DO_NOT_PAD},
        {"padding": "max_length", "max_length": 9},
        {"padding": "max_length", "max_length": 2, "truncation": True},
        {"padding": False, "max_length": 2, "truncation": "longest_first"},
        {"padding": True, "max_length": 4, "truncation": True},
        {"padding": True, "max_length": 40},
    ],
)
@pytest.mark.parametrize("side", ["right", "left"])
def test_as_the_text_tokenizer_does_it(options: dict[str, Any], side: str):
    tokenizer = text_tokenizer()
    tokenizer.padding_side, tokenizer.truncation_side = "left", side
    processing = SemHiTokMLLMProcessor.for_config(mllm().config, tokenizer)
    wanted = tokenizer(TEXTS, **({"truncation": False} | options))
    found = processing(text=TEXTS, return_tensors=None, **options)
    for name in ("input_ids", "attention_mask"):
        assert found[name] == wanted[name]


def test_to_the_context_by_default(processing: SemHiTokMLLMProcessor):
    assert processing(text=TEXTS, padding="max_length")["input_ids"].shape == (3, CONTEXT)


def test_in_chats(processing: SemHiTokMLLMProcessor):
    chats = [[{"role": "user", "content": text}] for text in TEXTS]
    whole = processing.apply_chat_template(chats, tokenize=True, padding="do_not_pad", return_tensors=None)
    assert len({len(row) for row in whole}) > 1
    for options in ({"max_length": 3, "truncation": True}, {"processor_kwargs": {"max_length": 3, "truncation": True}}):
        found = processing.apply_chat_template(chats, tokenize=True, **options)
        assert found.tolist() == [row[:3] if len(row) > 2 else [0, *row] for row in whole]


def test_images_are_never_cut(processing: SemHiTokMLLMProcessor):
    text, begin = "the <image> red cat", processing.vocabulary.image_begin_id
    whole = processing(PICTURE, text)["input_ids"]
    assert whole.shape == (1, 21)
    found = processing(PICTURE, text, max_length=19, truncation=True)
    assert torch.equal(found["input_ids"], whole[:, :19])
    for length in (18, 5, 2, 1):
        with pytest.raises(ValueError, match=f"max_length {length} would cut off an image in a text of 21 tokens"):
            processing(PICTURE, text, max_length=length, truncation=True)
    drawn = processing(PICTURE, text, max_length=20, truncation=True, generation_mode="image")["input_ids"]
    assert drawn[0].tolist() == [*whole[0, :19].tolist(), begin], "the begin of the next image is kept"
    processing.tokenizer.truncation_side = "left"
    try:
        found = processing(PICTURE, text, max_length=20, truncation=True)
        assert torch.equal(found["input_ids"], whole[:, 1:])
        with pytest.raises(ValueError, match="max_length 19 would cut off an image"):
            processing(PICTURE, text, max_length=19, truncation=True)
    finally:
        processing.tokenizer.truncation_side = "right"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 2}, "a text has 3 tokens, max_length is 2: shorten the text or pass truncation=True"),
        ({"padding": "longst"}, "padding must be True, False, longest, max_length or do_not_pad, got 'longst'"),
        ({"truncation": "sometimes"}, "truncation must be True or False, got 'sometimes'"),
    ],
)
def test_bad_values(processing: SemHiTokMLLMProcessor, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        processing(text="the red cat", **options)
