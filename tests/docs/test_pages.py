"""Code on the pages: Python is executed by a test or named here with the test that does; commands and their options exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.data.records_on_disk import png
from tests.tiny_unitok import save_unitok

from semhitok.cli import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
TEXTS = {"README.md": README, **PAGES}
EXECUTED = {
    "README.md": 4,  # here, test_python.py, test_language_model.py
    "docs/architecture.md": 1,  # test_architecture.py
    "docs/own-quantizer.md": 2,  # test_architecture.py; examples/own_quantizer.py in tests/experiments
    "docs/experiments.md": 1,  # what was measured: a record
    "docs/export.md": 2,  # tests/export
    "docs/released-tokenizers.md": 1,  # tests/tokenizers/released makes the same calls, on tiny folders
    "docs/reproduce.md": 1,  # tests/experiments makes the same call; the page's needs the papers' weights
    "docs/scale.md": 1,  # tests/mllm/test_compiled_steps.py makes the same calls
    "docs/serve.md": 1,  # test_serve.py
    "docs/language-model.md": 1,  # a message alone, parsed here
}
"""Blocks of Python on each page that are executed by tests, or whose calls are. Included ones (`--8<--`) belong to the page where they stand."""


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_all_python_on_the_pages_is_executed_somewhere():
    assert {name: len(blocks(text)) for name, text in TEXTS.items() if blocks(text)} == {
        name: count for name, count in EXECUTED.items() if name in TEXTS
    }
    (message,) = blocks(PAGES["docs/language-model.md"])
    assert eval(message)[0]["role"] == "user"


def test_what_a_page_includes_is_there():
    for name, text in PAGES.items():
        for file, section in re.findall(r'^--8<-- "([^":]+)(?::([\w-]+))?"$', text, re.MULTILINE):
            included = (ROOT / file).read_text(encoding="utf-8")
            assert not section or f"[start:{section}]" in included, f"{name} includes {section} of {file}"


def test_the_lines_of_models_as_transformers_models_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "photo.jpg").write_bytes(png(0))
    monkeypatch.chdir(tmp_path)
    (lines,) = (block for block in blocks(README) if "postprocess" in block)
    names: dict = {}
    exec(lines, names)
    assert names["images"].shape == names["pixels"].shape == (1, 3, 128, 128)
    assert (tmp_path / "back.png").exists()


def test_the_lines_of_unitok_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "photo.jpg").write_bytes(png(0))
    save_unitok(tmp_path / "unitok-large")
    monkeypatch.chdir(tmp_path)
    (lines,) = (block for block in blocks(README) if "UniTokModel" in block)
    names: dict = {}
    exec(lines, names)
    assert names["ids"].shape[0] == 1
    assert names["texts"].shape[0] == 2


def test_every_command_that_a_page_shows_exists():
    shown = {(name, command) for name, text in TEXTS.items() for command in _commands(text)}
    assert len(shown) > 40
    assert sorted((name, command) for name, command in shown if command not in COMMANDS) == []


def _commands(text: str) -> set[str]:
    """Names after `semhitok` at the beginning of a line of a shell block or of an inline code span."""
    shell = "\n".join(re.findall(r"```(?:bash|console)\n(.*?)```", text, re.DOTALL))
    in_blocks = re.findall(r"^(?:\$ )?(?:[A-Z_]+=\S+ )?semhitok ([a-z][a-z-]*)", shell, re.MULTILINE)
    return {*in_blocks, *re.findall(r"`semhitok ([a-z][a-z-]*)[ `]", text)}
