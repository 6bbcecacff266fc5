"""Where the time of a step goes, measured from outside by wrapping methods.

A nested part counts for the inner one only; time outside all parts is ``rest``. Parts therefore add up to the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from benchmarks.measuring import synchronize

REST = "rest"


@dataclass(frozen=True)
class Wrapped:
    """A method or function, by owner and name, and the part to which its time belongs."""

    owner: Any
    name: str
    part: str


class PartClock:
    """Adds up the time of each part, exclusively."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._now = now
        self._stack: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Attribute the time inside this context to ``name``."""
        self._close()
        self._stack.append(name)
        try:
            yield
        finally:
            self._close()
            self._stack.pop()

    def wrapped(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, with its time attributed to the part."""

        def timed(*arguments: Any, **keywords: Any) -> Any:
            with self.part(name):
                return function(*arguments, **keywords)

        return timed

    def _close(self) -> None:
        """Attribute the time since the last change to the innermost open part."""
        synchronize()
        now = self._now()
        if self._stack:
            part = self._stack[-1]
            self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now


@contextmanager
def watching(clock: PartClock, methods: Sequence[Wrapped]) -> Iterator[None]:
    """Measure the methods inside this context; everything else is ``rest``."""
    with ExitStack() as stack:
        for method in methods:
            timed = clock.wrapped(getattr(method.owner, method.name), method.part)
            stack.enter_context(patch.object(method.owner, method.name, timed))
        with clock.part(REST):
            yield
