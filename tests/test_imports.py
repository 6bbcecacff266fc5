"""Imports run one way: no circles and no import that runs up, those within functions and under TYPE_CHECKING included.

import-linter checks layers alone. Here the imports are read from the syntax tree, so nothing has to be imported.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "semhitok"

Imports = Mapping[str, set[str]]


def read_imports(package: Path) -> dict[str, set[str]]:
    """For each module of a package the modules of it that it imports.

    ``from a.b import c`` is an import of the module ``a.b.c``, and of the package ``a.b`` only where ``c`` is no module.
    """
    files = {_module_name(package, path): path for path in package.rglob("*.py")}
    return {
        name: set(_imported(name, path.name == "__init__.py", ast.parse(path.read_text(encoding="utf-8")), set(files)))
        for name, path in sorted(files.items())
    }


def _module_name(package: Path, path: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(module: str, is_package: bool, tree: ast.Module, known: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                above = parents[: len(parents) - node.level + is_package]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                found = f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base
                if found in known and found != module:
                    yield found


def circles(imports: Imports) -> list[list[str]]:
    """Groups of modules of which each imports, by way of others, every other: strongly connected components."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        numbers[module] = lowest[module] = len(numbers)
        path.append(module)
        for other in sorted(imports[module]):
            if other not in numbers:
                visit(other)
            if other in path:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == numbers[module]:
            first = path.index(module)
            found.append(sorted(path[first:]))
            del path[first:]

    for module in sorted(imports):
        if module not in numbers:
            visit(module)
    return sorted(group for group in found if len(group) > 1)


def read_contracts() -> dict[str, dict]:
    """The contracts of import-linter by type."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {contract["type"]: contract for contract in settings["tool"]["importlinter"]["contracts"]}


def imports_up(imports: Imports, layers: list[str]) -> list[str]:
    """Imports from a lower layer, or from a sibling, as ``a -> b``."""
    level = {name.strip(" ()"): number for number, layer in enumerate(layers) for name in layer.split("|")}
    return [
        f"{module} -> {other}"
        for module, others in imports.items()
        for other in sorted(others)
        if (one := _room(module)) != (two := _room(other)) and one and two and level[one] >= level[two]
    ]


def _room(module: str) -> str:
    """The second part of a module's name, empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def around_inference(imports: Imports, models: list[str]) -> list[str]:
    """Imports of model packages by the studio or the server, as ``a -> b``."""
    return [
        f"{module} -> {other}"
        for module, others in imports.items()
        if _room(module) in ("studio", "server")
        for other in sorted(others)
        if any(other == package or other.startswith(f"{package}.") for package in models)
    ]


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    return read_imports(PACKAGE)


def test_no_modules_import_each_other_in_a_circle(imports):
    assert circles(imports) == []


def test_no_import_runs_up_the_layers(imports):
    layers = read_contracts()["layers"]["layers"]
    assert len(layers) > 10
    assert imports_up(imports, layers) == []


def test_studio_and_server_reach_models_through_inference_alone(imports):
    assert around_inference(imports, read_contracts()["forbidden"]["forbidden_modules"]) == []


def test_collectives_are_called_through_distributed_alone():
    mentioned = {path.parent.name for path in PACKAGE.rglob("*.py") if "torch.distributed" in path.read_text("utf-8")}
    assert mentioned == {"distributed"}


def write_package(folder: Path, modules: Mapping[str, str]) -> Path:
    """A package called ``pack`` of the modules given by path and text; other ``__init__`` are empty."""
    package = folder / "pack"
    for name, text in modules.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in [package, *package.rglob("*/")]:
        (path / "__init__.py").touch()
    return package


def test_all_kinds_of_imports_are_read(tmp_path: Path):
    package = write_package(
        tmp_path,
        {
            "a/one": "import os, pack.b.two\nfrom typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from pack.a import four\n",
            "a/four": "from ..b import two, name\nfrom . import one as same\n",
            "b/two": "def later():\n    from pack.b.three import name\n    import pack.bother\n",
            "b/three": "import pack\nfrom pack import a\n",
            "b/__init__": "from .three import name\nfrom pack.b.two import *\n",
        },
    )
    assert {name: others for name, others in read_imports(package).items() if others} == {
        "pack.a.one": {"pack.b.two", "pack.a.four"},
        "pack.a.four": {"pack.b.two", "pack.b", "pack.a.one"},
        "pack.b.two": {"pack.b.three"},
        "pack.b.three": {"pack", "pack.a"},
        "pack.b": {"pack.b.three", "pack.b.two"},
    }


def test_circles_are_named_and_two_that_share_no_module_are_two():
    imports = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": {"f"}, "f": {"e"}, "g": {"a", "f"}}
    assert circles(imports) == [["a", "b", "c"], ["e", "f"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_imports_up_and_sideways_are_named():
    imports = {
        "pack": {"pack.low"},
        "pack.top.page": {"pack.low", "pack.side.b", "pack.top.other"},
        "pack.side.b": {"pack.top", "pack.low", "pack"},
        "pack.other_side.c": {"pack.side.b"},
    }
    layers = ["top", "side | (other_side)", "low"]
    assert imports_up(imports, layers) == ["pack.side.b -> pack.top", "pack.other_side.c -> pack.side.b"]


@pytest.mark.parametrize("room", ["studio", "server"])
def test_ways_around_inference_are_named(tmp_path: Path, room: str):
    package = write_package(
        tmp_path,
        {
            f"{room}/app": "from pack.inference import load\nfrom pack.storage.cache import weights\n",
            f"{room}/pages/chat": "def answer():\n    from pack.mllm.modeling import Model\n",
            f"{room}/__init__": "from pack import mllm\n",
            "mllm/modeling": "",
            "inference/load": "from pack.mllm.modeling import Model\n",
            "storage/cache": "",
        },
    )
    found = around_inference(read_imports(package), ["pack.mllm", "pack.nn"])
    assert found == [f"pack.{room} -> pack.mllm", f"pack.{room}.pages.chat -> pack.mllm.modeling"]
