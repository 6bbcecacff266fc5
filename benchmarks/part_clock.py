"""Where the time of a step goes, measured from outside: methods are wrapped, the code that is measured knows nothing.

A part inside another one counts once, for the inner; what is in no part is ``rest``. Parts therefore add up to the whole.
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
    """A method or function, by its owner and name, and the part that its time belongs to."""

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
        """Time from here on belongs to ``name``, and afterwards to the part around it again."""
        self._close()
        self._stack.append(name)
        try:
            yield
        finally:
            self._close()
            self._stack.pop()

    def wrapped(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, its time counted for the part."""

        def timed(*arguments: Any, **keywords: Any) -> Any:
            with self.part(name):
                return function(*arguments, **keywords)

        return timed

    def _close(self) -> None:
        """Give the time since the last change to the innermost open part."""
        synchronize()
        now = self._now()
        if self._stack:
            part = self._stack[-1]
            self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now


@contextmanager
def watching(clock: PartClock, methods: Sequence[Wrapped]) -> Iterator[None]:
    """Count the methods' time while inside; everything else inside is ``rest``."""
    with ExitStack() as stack:
        for method in methods:
            timed = clock.wrapped(getattr(method.owner, method.name), method.part)
            stack.enter_context(patch.object(method.owner, method.name, timed))
        with clock.part(REST):
            yield
