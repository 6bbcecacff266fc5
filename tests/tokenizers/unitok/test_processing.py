"""Images and texts in one call; saved beside a model and found again by the Auto class."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from tests.tokenizers.unitok.tiny import tiny
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

from semhitok.tokenizers.image_processing import TokenizerImageProcessor
from semhitok.tokenizers.unitok.processing import UniTokProcessor
from semhitok.tokenizers.unitok.text import train_text_tokenizer

RED = Image.new("RGB", (40, 30), (255, 0, 0))
TEXTS = ["a red square", "nothing"]


@pytest.fixture(scope="module")
def processor():
    text_tokenizer = train_text_tokenizer(TEXTS, vocab_size=530, context_length=12)
    return UniTokProcessor(TokenizerImageProcessor(size=16, mode="resize"), text_tokenizer)


def test_both_in_one_call(processor):
    batch = processor(images=[RED, RED, RED], text=TEXTS)
    assert batch["pixel_values"].shape == (3, 3, 16, 16)
    assert batch["pixel_values"][0, :, 0, 0].tolist() == [1.0, -1.0, -1.0]
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["input_ids"][:, 0].tolist() == [processor.tokenizer.bos_token_id] * 2
    assert list(batch) == ["pixel_values", "input_ids", "attention_mask"] == processor.model_input_names


def test_one_of_them(processor, tmp_path):
    RED.save(tmp_path / "red.png")
    for image in (
        RED,
        tmp_path / "red.png",
        (tmp_path / "red.png").read_bytes(),
        torch.zeros(3, 8, 8, dtype=torch.uint8),
    ):
        assert list(processor(images=image)) == ["pixel_values"]
    assert list(processor(text="a red square")) == ["input_ids", "attention_mask"]
    with pytest.raises(ValueError, match="neither images nor text"):
        processor()


def test_padding_and_cutting(processor):
    end = processor.tokenizer.eos_token_id
    batch = processor(text=TEXTS, padding="max_length")
    assert batch["input_ids"].shape == (2, 12)
    assert (batch["input_ids"][batch["attention_mask"] == 0] == end).all()
    long = processor(text="red " * 50)["input_ids"]
    assert long.shape == (1, 12)
    assert long[0, -1] == end
    assert processor(text=TEXTS, padding=False, return_tensors=None)["input_ids"][0][-1] == end


def test_options_of_images(processor):
    tall = Image.new("RGB", (16, 48))
    assert processor(images=tall, mode="tile")["pixel_values"].shape == (3, 3, 16, 16)
    with pytest.raises(ValueError, match="mode must be one of"):
        processor(images=tall, mode="stretch")


def test_saved_beside_a_model_and_found_again(processor, tmp_path):
    tiny().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    for loaded in (AutoProcessor.from_pretrained(tmp_path), UniTokProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is UniTokProcessor
        assert (loaded.image_processor.size, loaded.image_processor.mode) == (16, "resize")
        before, after = processor(images=RED, text=TEXTS), loaded(images=RED, text=TEXTS)
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert AutoImageProcessor.from_pretrained(tmp_path).size == 16
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == len(processor.tokenizer)
    assert loaded.decode(after["input_ids"][0], skip_special_tokens=True) == "a red square"


def test_control_tokens_that_are_typed_are_text(processor):
    """A caption may spell the end token, whose place decides the embedding of a text."""
    end, begin = processor.tokenizer.eos_token, processor.tokenizer.bos_token
    (ids,) = processor(text=f"a red {end} kite{begin}")["input_ids"].tolist()
    assert (ids.count(processor.tokenizer.eos_token_id), ids.count(processor.tokenizer.bos_token_id)) == (1, 1)
