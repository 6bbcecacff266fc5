"""A checkpoint without its tokenizer's weights: whole when loaded, and only with the tokenizer it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.mllm.tiny_mllm import mixed_ids, mllm
from tests.tiny import pixels, tiny_model

from semhitok import SemHiTokModel
from semhitok.mllm import SemHiTokForConditionalGeneration
from semhitok.mllm.shared_tokenizer import find_bundled
from semhitok.tokenizers import checkpoints
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SemHiTokModel:
    """A package that ships one tokenizer, ``tiny``."""
    tokenizer = tiny_model().eval()
    tokenizer.save_pretrained(tmp_path / "shipped" / "tiny")
    monkeypatch.setattr(checkpoints, "BUNDLED", tmp_path / "shipped")
    return tokenizer


@pytest.fixture
def folder(shipped: SemHiTokModel, tmp_path: Path) -> Path:
    """A model saved without the tokenizer's weights."""
    model = mllm(tokenizer=shipped)
    model.config.shared_tokenizer = "tiny"
    model.config.tokenizer_fingerprint = tokenizer_fingerprint(shipped)
    place = tmp_path / "model"
    model.save_pretrained(place)
    kept = {n: t for n, t in load_file(place / "model.safetensors").items() if not n.startswith("image_tokenizer.")}
    save_file(kept, place / "model.safetensors", metadata={"format": "pt"})
    return place


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_model_is_whole_and_saves_whole(
    shipped: SemHiTokModel, folder: Path, tmp_path: Path, dtype: torch.dtype
):
    model = SemHiTokForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
    whole = mllm(tokenizer=shipped).to(dtype).eval()
    assert not any(parameter.requires_grad for parameter in model.image_tokenizer.parameters())
    for name, tensor in whole.state_dict().items():
        found = model.state_dict()[name]
        if name.startswith(tuple(f"image_tokenizer.{prefix}" for prefix in shipped.encoder_side)):
            assert found.dtype == torch.float32, name  # loading keeps what decides ids, casting a model does not
            found = found.to(dtype)
        assert torch.equal(found, tensor), name
    ids = mixed_ids(model)
    if dtype == torch.float32:  # casting a model rounds the rotary frequencies, loading it does not
        assert torch.equal(model(input_ids=ids).logits, whole(input_ids=ids).logits)
    model.save_pretrained(tmp_path / "again")
    assert "image_tokenizer.semantic.quantizer.codebook_KD" in load_file(tmp_path / "again" / "model.safetensors")
    again = SemHiTokForConditionalGeneration.from_pretrained(tmp_path / "again", dtype=dtype)
    assert again.state_dict().keys() == model.state_dict().keys()


def test_without_the_encoder_side_it_still_draws(folder: Path):
    model = SemHiTokForConditionalGeneration.from_pretrained(folder, encoder=False).eval()
    whole = SemHiTokForConditionalGeneration.from_pretrained(folder).eval()
    ids = torch.arange(16)[None] % 64
    assert torch.equal(model.decode_image_tokens(ids), whole.decode_image_tokens(ids))
    with pytest.raises(ValueError, match="encoder"):
        model.image_tokenizer.encode(pixels(1))


def test_another_tokenizer_than_the_one_it_was_trained_on_is_refused(folder: Path, tmp_path: Path):
    other = tiny_model()
    with torch.no_grad():
        other.pixel_quantizer.codebook_KmD.add_(1e-3)
    other.save_pretrained(tmp_path / "shipped" / "tiny")
    with pytest.raises(ValueError, match=r"'tiny' with fingerprint \w+, the bundled one has \w+"):
        SemHiTokForConditionalGeneration.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"shared_tokenizer": "large"}))
    with pytest.raises(ValueError, match="shares the tokenizer 'large', which is not among tiny"):
        SemHiTokForConditionalGeneration.from_pretrained(folder)


def test_a_better_decoder_does_not_matter(folder: Path, tmp_path: Path):
    better = tiny_model()
    with torch.no_grad():
        for parameter in better.pixel_decoder.parameters():
            parameter.mul_(1.1)
    better.save_pretrained(tmp_path / "shipped" / "tiny")
    model = SemHiTokForConditionalGeneration.from_pretrained(folder).eval()
    ids = torch.arange(16)[None] % 64
    assert torch.equal(model.decode_image_tokens(ids), better.eval().decode(ids))


def test_other_missing_keys_are_still_an_error(folder: Path):
    kept = load_file(folder / "model.safetensors")
    del kept["lm_head.weight"]
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing keys: lm_head\.weight"):
        SemHiTokForConditionalGeneration.from_pretrained(folder)


def test_the_shipped_twin_is_found_by_its_ids(shipped: SemHiTokModel):
    assert find_bundled(shipped) == "tiny"
    other = tiny_model()
    with torch.no_grad():
        other.pixel_quantizer.codebook_KmD.add_(1e-3)
    assert find_bundled(other) is None


def test_ids_in_bf16_are_those_of_fp32():
    """Weights that come from another checkpoint are kept in fp32 as those of the tokenizer itself are."""
    images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    wanted = SemHiTokModel.from_pretrained("nano").encode(images).ids
    model = SemHiTokForConditionalGeneration.from_pretrained("mllm_nano", dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert torch.equal(model.image_tokenizer.encode(images).ids, wanted)
