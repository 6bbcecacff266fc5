"""The README's lines for one's own language model run as they stand, but for the names of what is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.data.records_on_disk import png
from tests.mllm.text_tokenizers import made
from tests.mllm.tiny_mllm import language_model, text_tokenizer
from tests.tiny import tiny_model

PAGE = Path(__file__).parents[2] / "README.md"
DOCS = Path(__file__).parents[2] / "docs" / "language-model.md"


def test_the_lines_for_ones_own_language_model_run(tmp_path: Path):
    language_model("qwen2, tied").save_pretrained(tmp_path / "lm")
    text_tokenizer().save_pretrained(tmp_path / "lm")
    tiny_model().save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "photo.png").write_bytes(png(0))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (lines,) = (block for block in blocks if "from_language_model" in block)
    assert len([line for line in lines.splitlines() if line]) <= 15
    for written, here in {
        "Qwen/Qwen2.5-0.5B-Instruct": tmp_path / "lm",
        '"mini"': f'"{tmp_path / "tokenizer"}"',
        "photo.jpg": tmp_path / "photo.png",
    }.items():
        assert written in lines
        lines = lines.replace(written, str(here))
    names: dict[str, Any] = {}
    exec(lines, names)
    model = names["model"]
    assert names["inputs"]["input_ids"].shape[1] > model.vocabulary.image_tokens
    visual = model.lm_head.weight.grad[model.vocabulary.visual_begin : model.vocabulary.visual_end]
    assert visual.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in model.adapter.parameters())
    assert all(parameter.grad is None for parameter in model.image_tokenizer.parameters())


def test_the_template_for_vicuna_is_llavas():
    (template,) = re.findall(r"```jinja\n(.*?)\n```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    tokenizer = made("llama")
    messages = [
        {"role": "user", "content": "<image>\nWhat?"},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "And?"},
    ]
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
        "polite answers to the user's questions. USER: <image>\nWhat? ASSISTANT: A cat.</s>USER: And? ASSISTANT:"
    )


def test_every_test_that_the_table_of_libraries_names_is_there():
    named = set(re.findall(r"`(tests/[a-z_/]+\.py)`", DOCS.read_text(encoding="utf-8")))
    assert len(named) > 6
    assert [name for name in named if not (PAGE.parent / name).is_file()] == []
