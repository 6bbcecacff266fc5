"""Settings of the whole process that code needs otherwise for a while, in any number of threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

Undo = Callable[[], None]


class ProcessSwitch:
    """A context in which a setting of the process is changed: by the first thread that enters, and back by the last that leaves.

    Threads that saved and restored it one by one would restore each other's change.

    Args:
        change: changes the setting and returns what undoes that.
    """

    def __init__(self, change: Callable[[], Undo]) -> None:
        self._change = change
        self._undo: Undo | None = None
        self._lock = threading.Lock()
        self._threads = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start_again)

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._undo = self._change()
            self._threads += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._switch_back()

    def _switch_back(self) -> None:
        assert self._undo is not None
        self._undo()

    def _start_again(self) -> None:
        """In a forked child, which has none of the parent's other threads: a lock that one of them held would never open."""
        self._lock = threading.Lock()
        if self._threads:
            self._threads = 0
            self._switch_back()
