"""Computing in true fp32, whatever precision the caller has chosen: ids must not depend on it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def exact_fp32(device: torch.device) -> Iterator[None]:
    """Matrix products and convolutions of fp32 tensors without autocast and without reduced precision (TF32, bf16).

    Autocast is a setting of the thread; the precision of products is one of the process. The latter is changed while any thread
    is inside and restored when the last one leaves; other threads compute in true fp32 meanwhile.
    """
    with _switch, torch.autocast(device.type, enabled=False):
        yield


class _PrecisionSwitch:
    """Counts the threads that compute exactly; only the first one in and the last one out touch the process's settings."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._before: list[str] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start_again)

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._before = [backend.fp32_precision for backend in _backends()]
                for backend in _backends():
                    backend.fp32_precision = "ieee"
            self._threads += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._restore()

    def _restore(self) -> None:
        for backend, precision in zip(_backends(), self._before, strict=True):
            backend.fp32_precision = precision

    def _start_again(self) -> None:
        """In a forked child, which has none of the parent's other threads: a lock that one of them held would never open."""
        self._lock = threading.Lock()
        if self._threads:
            self._threads = 0
            self._restore()


def _backends() -> tuple[Any, ...]:
    backends: Any = torch.backends
    return backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv


_switch = _PrecisionSwitch()
