"""Small good checkpoints of every kind that the package loads, and what a user does with each: for campaigns that tamper with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.mllm.tiny_mllm import language_model, mllm, processor, text_tokenizer
from tests.tiny import pixels, save_teacher, tiny_model
from tests.tiny_unitok import save_unitok

from semhitok.inference.loading import find_model, load_language_model, load_processor, load_tokenizer
from semhitok.mllm.settings import language_settings_of
from semhitok.recipes.language_recipe import Mix
from semhitok.runs.language_data import data_sets, mixture
from semhitok.runs.language_models import load_language_model as load_plain_language_model
from semhitok.teachers import EfficientNetLiteConfig, Teacher, TeacherConfig
from semhitok.teachers.efficientnet import EfficientNetLiteModel
from semhitok.tokenizers.settings import settings_of

CHAT = [{"role": "user", "content": "is there a cat"}, {"role": "assistant", "content": "the cat"}]


@dataclass(frozen=True)
class Subject:
    """A kind of checkpoint: how a good one is written, and what a user does with it."""

    write: Callable[[Path], object]
    use: Callable[[Path], object]


def write_unified(folder: Path) -> None:
    """A unified language model with its processor."""
    model = mllm()
    model.save_pretrained(folder)
    processor(model).save_pretrained(folder)


def write_language_model(folder: Path) -> None:
    """A plain language model with its text tokenizer."""
    language_model().save_pretrained(folder)
    text_tokenizer().save_pretrained(folder)


def write_efficientnet(folder: Path) -> None:
    """The built-in teacher's network as a checkpoint of its own."""
    EfficientNetLiteModel(EfficientNetLiteConfig(0.25, 0.5, num_blocks=3)).save_pretrained(folder)
    normalisation = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(normalisation))


def write_small_tokenizer(folder: Path) -> None:
    """A SemHiTok tokenizer on the built-in kind of teacher."""
    teacher = TeacherConfig(EfficientNetLiteConfig(0.25, 0.5, num_blocks=3), image_size=32)
    tiny_model(teacher_config=teacher).save_pretrained(folder)


def write_sets(folder: Path) -> None:
    """A list of data sets."""
    entries = [{"path": name, "kind": kind, "weight": 1.0} for name, kind in (("a", "caption"), ("b.jsonl", "text"))]
    (folder / "sets.json").write_text(json.dumps({"pretrain": entries}))


def use_tokenizer(folder: Path) -> None:
    """Load, describe, encode."""
    find_model(folder)
    model = load_tokenizer(folder, "cpu")
    json.dumps(settings_of(model))
    load_processor(folder, model)
    model.encode(pixels(1))


def use_unified(folder: Path) -> None:
    """Load, describe, and prompt."""
    model, prompts = load_language_model(folder, "cpu")
    json.dumps(language_settings_of(model))
    prompts.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=True)


def use_efficientnet(folder: Path) -> None:
    """Load and look."""
    Teacher.from_pretrained(folder, image_size=32, layer=-1)(pixels(1))


def use_sets(folder: Path) -> None:
    """Mix the sets."""
    mix = Mix(caption=0.5, text=0.5, text_to_image=0.0, chat=0.0)
    entries = data_sets(folder / "sets.json", "pretrain", mix)
    mixture(entries, [range(9)] * len(entries), mix, 0)  # type: ignore[arg-type]


SUBJECTS = {
    "semhitok": Subject(lambda folder: tiny_model().save_pretrained(folder), use_tokenizer),
    "semhitok, built-in teacher": Subject(write_small_tokenizer, use_tokenizer),
    "unitok": Subject(save_unitok, use_tokenizer),
    "language model": Subject(write_unified, use_unified),
    "teacher": Subject(save_teacher, lambda folder: Teacher.from_pretrained(folder)(pixels(1))),
    "efficientnet teacher": Subject(write_efficientnet, use_efficientnet),
    "plain language model": Subject(write_language_model, lambda folder: load_plain_language_model(str(folder))),
    "sets": Subject(write_sets, use_sets),
}
