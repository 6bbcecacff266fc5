"""A store in memory whose reads can be made to fail; its addresses begin with ``flaky://``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class FlakyStore(MemoryFileSystem):
    protocol = "flaky"
    root_marker = "/"
    store: dict[str, Any] = {}
    pseudo_dirs: list[str] = [""]
    reads: list[tuple[str, Any, Any]] = []
    fault: Callable[[int], Exception | None] = staticmethod(lambda number: None)
    _counting = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("flaky://", "memory://", 1))

    def cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
        with self._counting:
            type(self).reads.append((path, start, end))
            error = type(self).fault(len(self.reads))
        if error is not None:
            raise error
        return super().cat_file(path, start, end, **options)

    @classmethod
    def empty(cls) -> None:
        """Nothing stored, nothing read, no faults."""
        cls.store.clear()
        cls.reads.clear()
        cls.fault = staticmethod(lambda number: None)


fsspec.register_implementation("flaky", FlakyStore, clobber=True)
