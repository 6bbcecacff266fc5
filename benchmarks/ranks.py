"""Ranks of a benchmark: processes of this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.tiny import processes


def run_ranks(work: Callable[..., None], arguments: list[tuple[Any, ...]]) -> bool:
    """Run ``work`` in one process for each tuple of arguments; whether all of them ended well."""
    running = [processes.Process(target=work, args=each) for each in arguments]
    for each in running:
        each.start()
    for each in running:
        each.join()
    return not any(each.exitcode for each in running)
