"""Python code that a checkpoint brings along is never run, and nobody is asked whether it may be."""

from __future__ import annotations

import ast
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.data.records_on_disk import write_scenes
from tests.mllm.tiny_mllm import image_tokenizer, language_model, mllm, processor, text_tokenizer
from tests.tiny import loop_config, tiny_options
from tests.tokenizers.unitok.tiny import tiny as tiny_unitok

import semhitok
from semhitok.inference.loading import load_language_model as load_unified
from semhitok.inference.loading import load_tokenizer
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.recipes import LANGUAGE_RECIPES
from semhitok.runs.language import run_language
from semhitok.runs.language_models import load_language_model
from semhitok.teachers import Teacher
from semhitok.tokenizers import TokenizerImageProcessor
from semhitok.tokenizers.unitok.processing import UniTokProcessor
from semhitok.tokenizers.unitok.text import clip_text_tokenizer

CODE = """
from pathlib import Path
(Path(__file__).parent / "ran").touch()
Path({marker!r}).touch()
from transformers import PreTrainedConfig
class Foreign(PreTrainedConfig):
    model_type = "foreign"
"""
NAMES = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoImageProcessor", "AutoProcessor")
AUTO_MAP = dict.fromkeys(NAMES, "foreign.Foreign") | {"AutoTokenizer": ["foreign.Foreign", None]}


def write_foreign(folder: Path, marker: Path) -> Path:
    """A checkpoint of an unknown type, or one that is there already, turned into one that names its own code."""
    folder.mkdir(exist_ok=True)
    (folder / "foreign.py").write_text(CODE.format(marker=str(marker)))
    defaults = {
        "config.json": {"model_type": "foreign", "hidden_size": 8},
        "tokenizer_config.json": {"tokenizer_class": "Foreign"},
        "preprocessor_config.json": {"image_processor_type": "Foreign"},
        "processor_config.json": {"processor_class": "Foreign"},
    }
    for name, content in defaults.items():
        path = folder / name
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(known | content | {"auto_map": AUTO_MAP}))
    return folder


def as_recipe(folder: Path, place: Path, field: str) -> None:
    recipe = LANGUAGE_RECIPES["llava_v15"]()
    image_tokenizer().save_pretrained(place / "tokenizer")
    language_model().save_pretrained(place / "language_model")
    text_tokenizer().save_pretrained(place / "language_model")
    parts = {name: str(place / name) for name in ("tokenizer", "language_model")} | {field: str(folder)}
    stage = replace(recipe.pretrain, loop=loop_config(steps=1, batch_size=2), row_length=64)
    data = write_scenes(place / "scenes", 4)
    run_language(
        replace(recipe, **parts, pretrain=stage),
        data,
        tiny_options(place / "run", data_name="tiny"),
        stages=["pretrain"],
    )


ENTRIES = {
    "tokenizer": lambda folder, place: load_tokenizer(folder),
    "unified model": lambda folder, place: load_unified(folder),
    "language model": lambda folder, place: load_language_model(str(folder)),
    "part of a unified model": lambda folder, place: SemHiTokForConditionalGeneration.from_language_model(
        folder, image_tokenizer()
    ),
    "weights of a unified model's language model": lambda folder, place: (
        SemHiTokForConditionalGeneration.from_language_model(folder, image_tokenizer(), text_tokenizer=text_tokenizer())
    ),
    "teacher": lambda folder, place: Teacher.from_pretrained(folder),
    "processor": lambda folder, place: SemHiTokMLLMProcessor.from_pretrained(folder),
    "UniTok's processor": lambda folder, place: UniTokProcessor.from_pretrained(folder),
    "tokenizer of a recipe": lambda folder, place: as_recipe(folder, place, "tokenizer"),
    "language model of a recipe": lambda folder, place: as_recipe(folder, place, "language_model"),
}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A user who agrees to everything."""
    typed = io.StringIO("y\n" * 20)
    monkeypatch.setattr(sys, "stdin", typed)
    return typed


@pytest.mark.parametrize("entry", ENTRIES)
def test_foreign_code_is_refused_in_one_sentence_without_a_question(entry: str, tmp_path: Path, answers: io.StringIO):
    folder, marker = write_foreign(tmp_path / "foreign", tmp_path / "marker"), tmp_path / "marker"
    with pytest.raises(ValueError, match=str(folder)) as caught:
        ENTRIES[entry](folder, tmp_path)
    assert not marker.exists()
    assert answers.tell() == 0, "nobody was asked"
    assert "\n" not in str(caught.value)


def test_processors_of_known_models_do_not_take_a_foreign_text_tokenizer(tmp_path: Path, answers: io.StringIO):
    model, marker = mllm(), tmp_path / "marker"
    model.save_pretrained(tmp_path / "unified")
    processor(model).save_pretrained(tmp_path / "unified")
    unitok = tiny_unitok()
    unitok.save_pretrained(tmp_path / "unitok")
    UniTokProcessor(TokenizerImageProcessor(64), clip_text_tokenizer()).save_pretrained(tmp_path / "unitok")
    for kind, folder in ((SemHiTokMLLMProcessor, tmp_path / "unified"), (UniTokProcessor, tmp_path / "unitok")):
        (folder / "foreign.py").write_text(CODE.format(marker=str(marker)))
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings |= {"tokenizer_class": "Foreign", "auto_map": AUTO_MAP}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        with pytest.raises(ValueError, match=f"{folder} can only be loaded with Python code of its own"):
            kind.from_pretrained(folder)
    assert not marker.exists()
    assert answers.tell() == 0


def test_a_known_architecture_loads_by_the_code_of_transformers_whatever_it_brings(
    tmp_path: Path, answers: io.StringIO
):
    language_model().save_pretrained(tmp_path)
    text_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "foreign.py").write_text(CODE.format(marker=str(tmp_path / "marker")))
    config = json.loads((tmp_path / "config.json").read_text()) | {"auto_map": AUTO_MAP}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded, _ = load_language_model(str(tmp_path))
    assert type(loaded) is type(language_model())
    assert not (tmp_path / "marker").exists()
    assert answers.tell() == 0


def test_every_auto_class_in_the_package_is_told_not_to_trust():
    """``AutoX.from_pretrained`` is only handed to ``load_without_foreign_code``; ``AutoX.from_config`` says it itself."""
    found = []
    for path in Path(semhitok.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            loads = isinstance(node.func.value, ast.Name) and node.func.value.id.startswith(
                ("Auto", "CLIPTok", "Dinov2")
            )
            if loads and node.func.attr in ("from_pretrained", "from_config"):
                said = [each.value for each in node.keywords if each.arg == "trust_remote_code"]
                if not (said and isinstance(said[0], ast.Constant) and said[0].value is False):
                    found.append(f"{path.name}:{node.lineno}")
    assert not found
