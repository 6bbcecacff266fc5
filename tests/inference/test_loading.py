"""A model and the processor beside it are loaded together only if they fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.mllm.tiny_mllm import mllm, processor
from tests.tiny import save_teacher, tiny_model
from tests.tiny_unitok import save_unitok
from tests.tokenizers.unitok.tiny import tiny as tiny_unitok

from semhitok.inference.loading import (
    find_model,
    load_language_model,
    load_processor,
    load_tokenizer,
    newest_model,
    stage_models,
)
from semhitok.teachers import Teacher
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


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, model = tmp_path_factory.mktemp("good"), mllm()
    tiny_model().save_pretrained(folder / "semhitok")
    save_unitok(folder / "unitok")
    model.save_pretrained(folder / "language")
    processor(model).save_pretrained(folder / "language")
    save_teacher(folder / "teacher")
    return folder


LOADERS = {
    "semhitok": lambda folder: load_processor(folder, load_tokenizer(folder)),
    "unitok": lambda folder: load_processor(folder, load_tokenizer(folder)),
    "language": load_language_model,
    "teacher": Teacher.from_pretrained,
}
FIELDS: list[tuple[str, str, Any, str]] = [
    ("semhitok", "config.json stages", -1, "stages must be a list, each entry a text or null, got -1"),
    ("semhitok", "config.json semantic_decay", "x", "semantic_decay must be a finite number, got 'x'"),
    ("semhitok", "config.json encoder_layers", 10**9, "encoder_layers must be at most 1048576, got 1000000000"),
    ("semhitok", "config.json subcodebook_sizes", 3, "subcodebook_sizes must be a list"),
    ("semhitok", "config.json teacher_config", [], "teacher_config must be a TeacherConfig or an object or null"),
    (
        "semhitok",
        "config.json teacher_config.image_size",
        "x",
        "teacher_config: image_size must be a whole number, got 'x'",
    ),
    ("semhitok", "config.json teacher_config.backbone_config.hidden_size", None, "backbone_config: .*'hidden_size'"),
    ("semhitok", "config.json to_dict", 3, "to_dict is not a field of a SemHiTokConfig"),
    ("semhitok", "config.json provenance", "mine", "provenance must be an object or null, got 'mine'"),
    ("unitok", "config.json stage_widths", 8, "stage_widths must be a list, each entry a whole number, got 8"),
    ("unitok", "config.json drop_path", None, "drop_path must be a finite number, got None"),
    ("unitok", "config.json depth", 10**30, "depth must be at most 1048576"),
    ("unitok", "config.json text_config.num_attention_heads", 0, ""),
    ("unitok", "processor_config.json image_processor.size", "x", "size must be a whole number of pixels, got 'x'"),
    ("language", "config.json stages", 3, "stages must be a list, got 3"),
    (
        "language",
        "config.json code_head_width",
        "wide",
        "code_head_width must be a whole number of at least 1, got 'wide'",
    ),
    ("language", "config.json text_config.num_hidden_layers", -1, ""),
    ("language", "config.json text_config.vocab_size", "64", "text_config: .*'vocab_size' expected int, got str"),
    (
        "language",
        "config.json tokenizer_config.semantic_dim",
        [6],
        "tokenizer_config: semantic_dim must be a whole number",
    ),
    ("language", "processor_config.json text_size", "64", "text_size must be a whole number, got '64'"),
    ("language", "processor_config.json context_length", None, "context_length must be a whole number, got None"),
    (
        "teacher",
        "preprocessor_config.json image_mean",
        "half",
        "image_mean must be a list|image_mean and image_std need three",
    ),
    ("teacher", "config.json hidden_act", "nosuch", "nosuch"),
    ("teacher", "config.json num_attention_heads", 0, ""),
]


@pytest.mark.parametrize(("kind", "place", "value", "message"), FIELDS)
def test_a_tampered_field_is_one_sentence_with_place_and_field(
    kind: str, place: str, value: Any, message: str, good: Path, tmp_path: Path
):
    name, _, path = place.partition(" ")
    folder = Path(shutil.copytree(good / kind, tmp_path / "copy"))
    fields = json.loads((folder / name).read_text())
    *outer, last = path.split(".")
    inner = fields
    for key in outer:
        inner = inner[key]
    inner[last] = value
    (folder / name).write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=message) as caught:
        LOADERS[kind](folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "document", ["[]", "3", '"text"', "[" * 100_000, '{"a":' * 100_000, "{", '{"model_type": ["semhitok"]}']
)
@pytest.mark.parametrize("kind", LOADERS)
def test_a_document_that_is_no_configuration_is_one_sentence(kind: str, document: str, good: Path, tmp_path: Path):
    folder = Path(shutil.copytree(good / kind, tmp_path / "copy"))
    (folder / "config.json").write_text(document)
    with pytest.raises(ValueError, match=str(folder)) as caught:
        LOADERS[kind](folder)
    assert "\n" not in str(caught.value)
    if not document.endswith("}"):
        with pytest.raises(ValueError, match=str(folder)):
            find_model(folder)
    run = tmp_path / "run"
    shutil.move(folder, run / "model")
    assert newest_model(run) is None, "what is unreadable is not done"


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
