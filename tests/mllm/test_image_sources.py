"""Images in chats in each of the ways in which transformers' documentation writes them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import numpy as np
import pytest
import torch
from PIL import Image
from tests.mllm.tiny_mllm import mllm, processor

from semhitok.mllm import SemHiTokMLLMProcessor
from semhitok.tokenizers import TokenizerImageProcessor

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))


def png() -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, "PNG")
    return file.getvalue()


TEXT = base64.b64encode(png()).decode()
URL = f"data:image/png;base64,{TEXT}"
PARTS: dict[str, dict[str, Any]] = {
    "url": {"type": "image", "url": URL},
    "image": {"type": "image", "image": URL},
    "upper case": {"type": "image", "url": f"DATA:image/png;BASE64,{TEXT}"},
    "base64": {"type": "image", "base64": TEXT},
    "base64 in lines": {"type": "image", "base64": base64.encodebytes(png()).decode()},
    "base64 with its header": {"type": "image", "base64": URL},
    "percent": {"type": "image", "url": f"data:image/png,{quote_from_bytes(png())}"},
    "image_url": {"type": "image_url", "image_url": {"url": URL, "detail": "high"}},
    "image_url as text": {"type": "image_url", "image_url": URL},
    "bytes": {"type": "image", "image": png()},
}


@pytest.fixture(scope="module")
def processing() -> SemHiTokMLLMProcessor:
    return processor(mllm())


@pytest.fixture(scope="module")
def wanted(processing: SemHiTokMLLMProcessor) -> torch.Tensor:
    return processing.image_processor(PICTURE)["pixel_values"]


@pytest.mark.parametrize("name", PARTS)
def test_an_image_in_a_chat(processing: SemHiTokMLLMProcessor, wanted: torch.Tensor, name: str):
    messages = [{"role": "user", "content": [PARTS[name], {"type": "text", "text": " what"}]}]
    found = processing.apply_chat_template(messages, tokenize=True, return_dict=True)
    assert torch.equal(found["pixel_values"], wanted)
    assert (found["input_ids"] == processing.vocabulary.placeholder_id).sum() == 16


def test_a_data_url_beside_the_text_and_for_a_tokenizer(
    processing: SemHiTokMLLMProcessor, wanted: torch.Tensor, tmp_path: Path
):
    (tmp_path / "a.png").write_bytes(png())
    for image in (URL, str(tmp_path / "a.png"), tmp_path / "a.png"):
        assert torch.equal(processing(image, "<image>")["pixel_values"], wanted)
        assert torch.equal(processing([image], "<image>")["pixel_values"], wanted)
        assert torch.equal(TokenizerImageProcessor(size=32)(image)["pixel_values"], wanted)


@pytest.mark.parametrize("address", ["http://example.org/a.png", "https://example.org/a.png", "HTTPS://example.org/a"])
def test_addresses_on_the_network_are_refused_in_a_sentence(processing: SemHiTokMLLMProcessor, address: str):
    for part in (
        {"type": "image", "url": address},
        {"type": "image", "image": address},
        {"type": "image_url", "image_url": {"url": address}},
    ):
        with pytest.raises(ValueError, match=f"images are not fetched from the network, got '{address}': download it"):
            processing.apply_chat_template([{"role": "user", "content": [part]}], tokenize=True)
    with pytest.raises(ValueError, match="not fetched from the network"):
        TokenizerImageProcessor(size=32)(address)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "image", "base64": "%%"}, "an image in base64 cannot be decoded"),
        ({"type": "image", "base64": "abcde"}, "an image in base64 cannot be decoded"),
        ({"type": "image", "base64": 3}, "an image in base64 must be a text, got int"),
        ({"type": "image", "url": "data:image/png;base64"}, "a data URL of an image is data:image/png;base64,"),
        ({"type": "image", "url": "data:image/png;base64,AAAA"}, "not an image"),
        ({"type": "image_url", "image_url": {"detail": "high"}}, "a part of a message must be"),
    ],
)
def test_damaged_ones_are_named(processing: SemHiTokMLLMProcessor, part: dict, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        processing.apply_chat_template([{"role": "user", "content": [part]}], tokenize=True)
    assert len(str(caught.value)) < 300
