"""A clean stop on SIGTERM (schedulers, containers) and SIGINT (Ctrl-C)."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Self

GRACE_SECONDS = 2.0


class Interruption:
    """Context manager that records a request to stop instead of exiting at once; a second signal terminates.

    A second signal within GRACE_SECONDS is ignored: torchrun forwards a Ctrl-C that the terminal has already sent to
    each rank.

    It has no effect outside the main thread, where Python allows no signal handlers.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self.requested = False
        self._requested_at = 0.0
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._remember) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self._requested_at = True, time.monotonic()
        elif time.monotonic() - self._requested_at > GRACE_SECONDS:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
