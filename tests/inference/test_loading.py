"""A model and the processor beside it are loaded together only if they fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.mllm.tiny_mllm import mllm, processor
from tests.tiny import tiny_model
from tests.tokenizers.unitok.tiny import tiny as tiny_unitok

from semhitok.inference.loading import load_language_model, load_processor, load_tokenizer, stage_models
from semhitok.tokenizers import TokenizerImageProcessor
from semhitok.tokenizers.unitok.processing import UniTokProcessor
from semhitok.tokenizers.unitok.text import clip_text_tokenizer


def resize(folder: Path, size: int) -> None:
    """Another size in whichever file keeps the image processor."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).exists():
            fields = json.loads((folder / name).read_text())
            fields.get("image_processor", fields)["size"] = size
            (folder / name).write_text(json.dumps(fields))


def test_a_language_model_with_images_of_another_size_is_refused(tmp_path: Path):
    model = mllm()
    model.save_pretrained(tmp_path)
    processor(model).save_pretrained(tmp_path)
    size = model.config.tokenizer_config.image_size
    assert load_language_model(tmp_path)[1].image_processor.size == size
    resize(tmp_path, 48)
    with pytest.raises(
        ValueError, match=f"belongs to another model: it makes images of 48 pixels, the model takes {size}"
    ):
        load_language_model(tmp_path)


def test_a_tokenizer_with_images_of_another_size_is_refused(tmp_path: Path):
    tiny_unitok().save_pretrained(tmp_path)
    UniTokProcessor(TokenizerImageProcessor(64), clip_text_tokenizer()).save_pretrained(tmp_path)
    model = load_tokenizer(tmp_path)
    assert load_processor(tmp_path, model).image_processor.size == 64
    resize(tmp_path, 48)
    with pytest.raises(ValueError, match="belongs to another model: it makes images of 48 pixels, the model takes 64"):
        load_processor(tmp_path, model)


def test_the_stages_of_a_run_that_give_back_images(tmp_path: Path):
    for stage in ("semantic", "pixel", "decoder"):
        model = tiny_model(stages=[stage])
        model.save_pretrained(tmp_path / stage / "model")
    tiny_model(stages=["pixel"]).save_pretrained(tmp_path / "pixel-finetune" / "model")  # interrupted
    assert list(stage_models(tmp_path).items()) == [
        ("pixel", tmp_path / "pixel" / "model"),
        ("decoder", tmp_path / "decoder" / "model"),
    ]
    assert stage_models(tmp_path / "pixel") == {}
    assert stage_models(tmp_path / "nosuch") == {}
