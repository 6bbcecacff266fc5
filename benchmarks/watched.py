"""Trials in a process that may hang, crash or take all memory: it is watched, and replaced when it does."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.measuring import memory_is_measurable, peak_above

SECONDS = 5.0
BYTES = 2**30
HEADROOM = 2**32
"""Bytes of addresses above which the process is refused more, so that a trial cannot take the machine's memory."""
GOOD = ("read", "refused")

Trial = Callable[[int], str]


def campaign(trial: Trial, numbers: Sequence[int]) -> tuple[Counter[str], list[str]]:
    """How often each outcome came, and the faults: everything but ``read`` and ``refused``, too many seconds, too much memory.

    The trials run in a fork of this process, which must have no threads.
    """
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    waiting = list(numbers)
    while waiting:
        for number, outcome, seconds, peak in _watch(trial, waiting):
            waiting.pop(0)
            if outcome not in GOOD:
                faults.append(f"trial {number}: {outcome}")
            elif seconds > SECONDS:
                faults.append(f"trial {number}: {seconds:.1f} s")
            elif peak > BYTES:
                faults.append(f"trial {number}: {peak / 2**20:.0f} MiB")
            outcomes[outcome if outcome in GOOD else "fault"] += 1
    return outcomes, faults


def _watch(trial: Trial, numbers: Sequence[int]):
    """Number, outcome, seconds and bytes of each trial, up to one that the process does not survive."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _work(trial, numbers, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            for number in numbers:
                begun = time.monotonic()
                line = _line(pipe, begun + 2 * SECONDS)  # a slow machine is not a hang
                if line is None:
                    os.kill(child, signal.SIGKILL)
                    yield number, f"hangs for {time.monotonic() - begun:.0f} s", 0.0, 0
                    return
                if not line:
                    yield number, "the process died", 0.0, 0
                    return
                yield json.loads(line)
    finally:
        os.waitpid(child, 0)


def _line(pipe, until: float) -> bytes | None:
    """The next line; empty at the end of the pipe, None after the time."""
    found = b""
    while not found.endswith(b"\n"):
        if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
            return None
        piece = pipe.read(4096)
        if not piece:
            return b""
        found += piece
    return found


def _work(trial: Trial, numbers: Sequence[int], writing: int) -> None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + HEADROOM,) * 2)
        for number in numbers:
            begun, found = time.perf_counter(), ["nothing"]

            def run(number: int = number, found: list[str] = found) -> None:
                try:
                    found[0] = trial(number)
                except BaseException as error:
                    found[0] = f"{type(error).__name__}: {str(error)[:300]}"

            peak = peak_above(run) if memory_is_measurable() else (run(), 0)[1]
            line = json.dumps([number, found[0][:400], time.perf_counter() - begun, peak])
            os.write(writing, f"{line}\n".encode())
    finally:
        os._exit(0)
