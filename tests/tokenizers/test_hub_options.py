"""Subfolders, variants, and a hub id with its revision and cache folder, for tokenizers, language models and Auto classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.mllm.tiny_mllm import mllm, processor
from tests.tiny import pixels, tiny_model
from tests.tiny_unitok import tiny_unitok
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor

from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.tokenizers import SemHiTokModel, TokenizerImageProcessor, UniTokModel
from semhitok.tokenizers.loading import load_tokenizer

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints in subfolders of one folder, which is no checkpoint itself."""
    folder, model = tmp_path_factory.mktemp("root"), mllm()
    tiny_model().save_pretrained(folder / "tokenizer")
    tiny_unitok().save_pretrained(folder / "unitok")
    model.save_pretrained(folder / "language")
    processor(model).save_pretrained(folder / "language")
    return folder


@pytest.fixture(scope="module")
def hub(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The same in a cache of the hub, under a revision that is not main."""
    cache = tmp_path_factory.mktemp("hub")
    shutil.copytree(root, cache / "models--someone--several" / "snapshots" / REVISION)
    (cache / "models--someone--several" / "refs").mkdir()
    (cache / "models--someone--several" / "refs" / "old").write_text(REVISION)
    return {"cache_dir": str(cache), "revision": "old", "local_files_only": True, "token": False}


def test_subfolders(root: Path):
    check(root, {})


def test_a_hub_id_with_revision_and_cache(hub: dict, monkeypatch: pytest.MonkeyPatch):
    # The Auto classes of transformers look for adapters on the network whatever ``local_files_only`` says.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check("someone/several", hub)


def check(place: Path | str, options: dict):
    ids = tiny_model().encode(pixels(2)).ids
    for loader in (SemHiTokModel.from_pretrained, AutoModel.from_pretrained, load_tokenizer):
        assert torch.equal(loader(place, subfolder="tokenizer", **options).encode(pixels(2)).ids, ids)
    for loader in (UniTokModel.from_pretrained, AutoModel.from_pretrained, load_tokenizer):
        assert isinstance(loader(place, subfolder="unitok", **options), UniTokModel)
    assert load_tokenizer(place, subfolder="tokenizer", encoder=False, **options).teacher is None
    for image_processor in (TokenizerImageProcessor, AutoImageProcessor):
        assert image_processor.from_pretrained(place, subfolder="tokenizer", **options).size == 32
    for language in (SemHiTokForConditionalGeneration, AutoModelForImageTextToText):
        model = language.from_pretrained(place, subfolder="language", **options)
        assert torch.equal(model.image_tokenizer.encode(pixels(2)).ids, ids)
    half = SemHiTokForConditionalGeneration.from_pretrained(place, subfolder="language", encoder=False, **options)
    assert half.image_tokenizer.teacher is None
    for language in (SemHiTokMLLMProcessor, AutoProcessor):
        assert language.from_pretrained(place, subfolder="language", **options).vocabulary == half.vocabulary


def test_a_subfolder_is_checked_as_strictly(root: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"language holds a model of type 'semhitok_mllm', expected 'semhitok'"):
        SemHiTokModel.from_pretrained(root, subfolder="language")
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a checkpoint: it has no config\.json"):
        SemHiTokModel.from_pretrained(root, subfolder="nowhere")
    folder = shutil.copytree(root / "tokenizer", tmp_path / "a" / "b")
    weights = load_file(folder / "model.safetensors")
    shifted = weights | {"pixel_quantizer.codebook_KmD": weights["pixel_quantizer.codebook_KmD"].long()}
    save_file(shifted, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"not of floating point: pixel_quantizer\.codebook_KmD$"):
        SemHiTokModel.from_pretrained(tmp_path, subfolder="a/b")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ValueError, match="holds a PEFT adapter of another model"):
        SemHiTokModel.from_pretrained(tmp_path / "a", subfolder="b")


def test_a_variant_is_checked_as_strictly(root: Path, tmp_path: Path):
    folder = shutil.copytree(root / "tokenizer", tmp_path / "tokenizer")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model.half.safetensors")
    loaded = SemHiTokModel.from_pretrained(folder, variant="half")
    assert torch.equal(loaded.encode(pixels(2)).ids, tiny_model().encode(pixels(2)).ids)
    weights["pixel_decoder.project_in.bias"] = torch.ones(16, dtype=torch.int64)
    save_file(weights, folder / "model.half.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"not of floating point: pixel_decoder\.project_in\.bias$"):
        SemHiTokModel.from_pretrained(folder, variant="half")
