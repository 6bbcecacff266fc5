"""What is imported when: nothing heavy by help, and the Auto classes know the models whoever imports transformers."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiny import save_images

import semhitok
from semhitok import mllm, tokenizers
from semhitok.cli import COMMANDS

KNOWN = """
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor
for kind in ("semhitok", "unitok"):
    config = AutoConfig.for_model(kind)
    assert AutoModel._model_mapping[type(config)].config_class is type(config)
mllm = type(AutoConfig.for_model("semhitok_mllm"))
assert AutoModelForImageTextToText._model_mapping[mllm].config_class is mllm
"""

HELP = f"""
import contextlib, io, sys
from importlib.util import find_spec
from semhitok.cli import COMMANDS, main

def runs(*arguments):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = main(list(arguments))
    return code, {{"torch", "transformers"}} & set(sys.modules)

assert find_spec("semhitok.cli.train").loader.get_code("semhitok.cli.train"), "python -m semhitok.cli.train needs it"
assert runs("--help") == (0, set())
assert runs("--version") == (0, set())
assert runs("nosuch") == (2, set())
for name in COMMANDS:
    if name != "train":
        assert runs(name, "--help") == (0, set()), name
assert runs("data", "scenes", "--help") == (0, set())
assert runs("encode") == (2, set())
assert runs("train", "--help") in ((0, set()), (0, {{"torch"}})), "recipes are values: no transformers"
assert runs("train", "mllm_nano", "--help-all") in ((0, set()), (0, {{"torch"}}))
{KNOWN}
"""

ORDERS = {
    "help, then the Auto classes": HELP,
    "transformers first": f"import transformers, semhitok{KNOWN}",
    "a module that imports transformers half way": (
        f"from semhitok.mllm.legal_ids import LegalIds\nimport semhitok.mllm.modeling{KNOWN}"
    ),
}


@pytest.fixture(scope="module")
def processes() -> dict[str, subprocess.Popen[str]]:
    """All at once, as each imports everything anew."""
    return {
        name: subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        for name, code in ORDERS.items()
    }


@pytest.mark.parametrize("name", ORDERS)
def test_a_fresh_process(processes: dict[str, subprocess.Popen[str]], name: str):
    _, errors = processes[name].communicate(timeout=300)
    assert processes[name].returncode == 0, errors


@pytest.mark.parametrize("package", [semhitok, mllm, tokenizers])
def test_every_public_name_is_there(package):
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nosuch'"):
        package.nosuch  # noqa: B018


def test_every_command_has_a_module():
    for command in COMMANDS.values():
        assert (Path(semhitok.__file__).parent / "cli" / f"{command.module.rpartition('.')[2]}.py").is_file()


def test_the_examples_of_the_package_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = save_images(tmp_path / "here", count=2)
    (folder / "000.png").rename(folder / "a.jpg")
    (folder / "001.png").rename(folder / "b.png")
    monkeypatch.chdir(folder)
    found = doctest.testmod(semhitok)
    assert (found.failed, found.attempted > 5) == (0, True)
    assert (folder / "a.jpg.restored.png").is_file()
