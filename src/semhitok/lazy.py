"""Imports that wait, so that ``import semhitok`` and ``semhitok --help`` answer at once.

Public names are resolved when they are first used, and what has to follow the import of transformers follows it, whoever
imports it and when.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_WATCHED = "transformers"
_OWN = __name__.partition(".")[0] + "."


def lazy_names(package: str, places: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose public names are imported when they are first used.

    Args:
        package: ``__name__`` of the package. Its submodules are found, too, as if they had been imported.
        places: by public name, the module that defines it.
    """
    own = vars(sys.modules[package])

    def resolve(name: str) -> Any:
        missing = AttributeError(f"module {package!r} has no attribute {name!r}")
        if name in places:
            own[name] = getattr(import_module(places[name]), name)
            return own[name]
        if name.startswith("_"):
            raise missing
        try:
            return import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":
                raise
            raise missing from None

    return resolve, lambda: sorted({*own, *places})


def after_transformers(callback: Callable[[], None]) -> Callable[[], None]:
    """Call back once transformers has been imported: now if it has been, otherwise right after its import.

    Where a module of this package is the one that imports it, the call waits until the outermost of them is complete, so
    that the callback may import any module.

    Returns:
        What takes the wish back; without effect after the call.
    """
    if _WATCHED in sys.modules and not _imports.depth:
        callback()
        return lambda: None
    if not _imports.callbacks:
        sys.meta_path.insert(0, _imports)
    _imports.callbacks.append(callback)
    return lambda: _imports.callbacks.remove(callback) if callback in _imports.callbacks else None


class _Imports(MetaPathFinder):
    """Finds nothing itself; counts how deep the watched imports are nested, and notices when the outermost is complete."""

    def __init__(self) -> None:
        self.depth = 0
        self.callbacks: list[Callable[[], None]] = []

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _WATCHED and not name.startswith(_OWN):
            return None
        others = [finder.find_spec for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec = next((spec for find in others if (spec := find(name, path, target)) is not None), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Counted(self, spec.loader)  # pyright: ignore[reportArgumentType]
        return spec

    def completed(self) -> None:
        """The outermost import is complete."""
        if _WATCHED in sys.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
            waiting, self.callbacks = self.callbacks, []
            for callback in waiting:
                callback()


class _Counted(Loader):
    """A loader for the time of one import; the module keeps the real one."""

    def __init__(self, imports: _Imports, loader: Loader) -> None:
        self.imports, self.loader = imports, loader

    def __getattr__(self, name: str) -> Any:  # such as get_code, for python -m
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.imports.depth += 1
        try:
            self.loader.exec_module(module)
        finally:
            self.imports.depth -= 1
        if not self.imports.depth:
            self.imports.completed()


_imports = _Imports()
