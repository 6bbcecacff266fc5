"""Every command of the pages and scripts for large runs is one that its parser accepts."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
import tyro

from semhitok.cli import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / name for name in ("reproduce.md", "scale.md", "long-runs.md")]
SCRIPTS = sorted((ROOT / "examples" / "cluster").glob("*.s*"))


class ParsedError(BaseException):
    """Raised in place of running a command."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[str]:
    """Lines that run semhitok, from the name of the command on; those that differ only in places are one."""
    texts = [block for page in PAGES for block in blocks(page, "bash")] + [path.read_text() for path in SCRIPTS]
    found = {}
    for line in "\n".join(texts).replace("\\\n", " ").splitlines():
        if match := re.search(r"(?:-m semhitok\.cli\.|^\s*semhitok )(.*)", line.split(" #")[0]):
            command = re.sub(r"\$SLURM_\w+", "1", match[1].strip())
            found.setdefault(re.sub(r"(DATA|RUNS|SHARED|s3:)\S*", "PLACE", command), command)
    return list(found.values())


def test_every_command_parses(monkeypatch):
    usual = tyro.cli

    def parse_only(*arguments, **options):
        usual(*arguments, **options)
        raise ParsedError

    monkeypatch.setattr(tyro, "cli", parse_only)
    found = commands()
    assert len(found) > 30
    for command in found:
        name, *arguments = shlex.split(re.sub(r"(?<!--data) \.\.\.$", "", command))
        try:
            with pytest.raises(ParsedError):
                importlib.import_module(COMMANDS[name].module).main(arguments)
        except SystemExit:
            pytest.fail(f"semhitok {command} is refused")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_other_blocks_are_python_and_json(page: Path):
    for block in blocks(page, "python"):
        ast.parse(block)
    for block in blocks(page, "json"):
        assert set(json.loads(block)) == {"pretrain", "sft"}


def test_scripts_are_all_listed():
    readme = (ROOT / "examples" / "cluster" / "README.md").read_text()
    assert SCRIPTS
    assert all(f"`{path.name}`" in readme for path in SCRIPTS)
