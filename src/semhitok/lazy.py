"""Lazy imports, so that ``import semhitok`` and ``semhitok --help`` start at once.

Public names are resolved on first use, and callbacks run after transformers is imported, whoever imports it and when.
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
    """``__getattr__`` and ``__dir__`` of a package whose public names are imported on first use.

    Args:
        package: ``__name__`` of the package, whose submodules are also imported on first use.
        places: public names to the modules that define them.
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
    """Run a callback once transformers has been imported: now if it has been, otherwise right after its import.

    If a module of this package imports it, the callback runs after the outermost of these imports, so that it may import
    any module.

    Returns:
        A function that cancels the callback; it has no effect after the callback has run.
    """
    if _WATCHED in sys.modules and not _imports.depth:
        callback()
        return lambda: None
    if not _imports.callbacks:
        sys.meta_path.insert(0, _imports)
    _imports.callbacks.append(callback)
    return lambda: _imports.callbacks.remove(callback) if callback in _imports.callbacks else None


class _Imports(MetaPathFinder):
    """Finds no modules itself, but tracks the nesting of watched imports to detect when the outermost is complete."""

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
        """Run the callbacks after the outermost import."""
        if _WATCHED in sys.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
            waiting, self.callbacks = self.callbacks, []
            for callback in waiting:
                callback()


class _Counted(Loader):
    """A loader used only during an import; the module keeps the original one."""

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
