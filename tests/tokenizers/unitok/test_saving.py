"""UniTok in Hugging Face's layout: saved and loaded without loss, strictly, with or without its encoder side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import pixels, tiny_model
from tests.tokenizers.unitok.tiny import tiny
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from semhitok.tokenizers import SemHiTokModel, TokenizerImageProcessor, UniTokConfig, UniTokModel


@pytest.fixture(scope="module")
def model() -> UniTokModel:
    return tiny(stages=["joint"])


@pytest.fixture(scope="module")
def saved(model: UniTokModel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unitok")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return pixels(3, seed=1, size=64)


@pytest.mark.parametrize("loader", [UniTokModel, AutoModel])
def test_a_saved_model_is_the_same_bit_for_bit(model: UniTokModel, saved: Path, images: Tensor, loader: type):
    assert {path.name for path in saved.iterdir()} == {"config.json", "model.safetensors", "preprocessor_config.json"}
    loaded = loader.from_pretrained(saved)
    assert isinstance(loaded, UniTokModel)
    assert not loaded.training
    assert loaded.config.stages == ["joint"]
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    encoded = model.encode(images)
    assert torch.equal(loaded.encode(images).ids, encoded.ids)
    assert torch.equal(loaded.decode(encoded.ids), model.decode(encoded.ids))
    texts = torch.tensor([[5, 9, 49407]])
    # Memory that safetensors maps is aligned in another way, which changes the last bit of products this small.
    torch.testing.assert_close(loaded.text_embedding(texts), model.text_embedding(texts), atol=1e-6, rtol=0)


def test_auto_classes(model: UniTokModel, saved: Path):
    assert isinstance(AutoConfig.from_pretrained(saved), UniTokConfig)
    processor = AutoImageProcessor.from_pretrained(saved)
    assert isinstance(processor, TokenizerImageProcessor)
    assert processor.size == model.config.image_size == 64


def test_without_the_encoder_side(model: UniTokModel, saved: Path, images: Tensor, tmp_path: Path):
    ids = model.encode(images).ids
    decoder = UniTokModel.from_pretrained(saved, encoder=False)
    parts = {name.split(".")[0] for name in decoder.state_dict()}
    assert parts == {"quantizer", "project_up", "decoder"}
    assert torch.equal(decoder.decode(ids), model.decode(ids))
    assert torch.equal(decoder.embed(ids).pixel, model.embed(ids).pixel)
    for call in (decoder.encode, decoder.forward, decoder.image_embedding):
        with pytest.raises(ValueError, match=r"loaded without its encoder side \(encoder=False\)") as caught:
            call(images)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no text tower"):
        decoder.text_embedding(torch.tensor([[1]]))
    decoder.save_pretrained(tmp_path)
    assert torch.equal(UniTokModel.from_pretrained(tmp_path).decode(ids), model.decode(ids))
    with pytest.raises(ValueError, match=r"missing keys: .*encoder"):
        UniTokModel.from_pretrained(tmp_path, encoder=True)


@pytest.mark.parametrize(
    "name",
    ["quantizer.codebooks_CKc", "decoder.stem.draw.weight", "text_model.text_projection.weight", "logit_scale"],
)
def test_a_missing_key_is_named(folder: Path, name: str):
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"missing keys: {name.replace('.', '[.]')}$"):
        UniTokModel.from_pretrained(folder)


def test_keys_too_many_and_of_another_shape_are_named(folder: Path):
    tensors = load_file(folder / "model.safetensors")
    tensors["decoder.extra"] = torch.zeros(2)
    tensors["quantizer.codebooks_CKc"] = torch.zeros(4, 16, 7)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for options in ({}, {"encoder": False}):
        with pytest.raises(ValueError, match=r"decoder\.extra") as caught:
            UniTokModel.from_pretrained(folder, **options)
        assert "quantizer.codebooks_CKc" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_another_class_of_model_is_refused(saved: Path, tmp_path: Path):
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="semhitok"):
        UniTokModel.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="unitok"):
        SemHiTokModel.from_pretrained(saved)


def test_a_configuration_that_contradicts_itself_is_one_sentence(folder: Path):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_codebooks": 5}))
    with pytest.raises(ValueError, match="32 channels cannot be split into 5 chunks"):
        UniTokModel.from_pretrained(folder)
