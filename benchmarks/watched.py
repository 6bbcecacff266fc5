"""Trials in a process that may hang, crash or take all memory: it is watched, and replaced when it does."""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path

from benchmarks.measuring import memory_is_measurable, peak_above

SECONDS = 5.0
"""Of processor time, since other work on the machine is no fault of a trial."""
PATIENCE = 120.0
"""Seconds after which a trial hangs without computing anything."""
BYTES = 2**30
HEADROOM = 2**32
"""Bytes of addresses beyond which the process gets no more, so that a trial cannot take the machine's memory."""
GOOD = ("read", "refused")

Trial = Callable[[int], str]


def campaign(trial: Trial, numbers: Sequence[int]) -> tuple[Counter[str], list[str]]:
    """How often each outcome came, and the faults: everything but ``read`` and ``refused``, too much time, too much memory.

    The trials run in a fork of this process, which must have no threads.
    """
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    waiting = list(numbers)
    while waiting:
        for number, outcome, peak in _watch(trial, list(waiting)):
            waiting.pop(0)
            if outcome in GOOD and peak > BYTES:
                outcome = f"{outcome} with {peak / 2**20:.0f} MiB"
            if outcome not in GOOD:
                faults.append(f"trial {number}: {outcome}")
            outcomes[outcome if outcome in GOOD else "fault"] += 1
    return outcomes, faults


def _watch(trial: Trial, numbers: Sequence[int]) -> Iterator[tuple[int, str, int]]:
    """Number, outcome and bytes of each trial, up to one that the process does not survive."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _work(trial, numbers, writing)
    os.close(writing)
    with FileIO(reading) as pipe:
        read = bytearray()
        for number in numbers:
            line = _line(pipe, read)
            if line is None:
                os.kill(child, signal.SIGKILL)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                slow, hangs = code == -signal.SIGPROF, code == -signal.SIGKILL
                yield (
                    number,
                    f"{SECONDS:g} s" if slow else f"hangs for {PATIENCE:g} s" if hangs else f"died with {code}",
                    0,
                )
                return
            yield tuple(json.loads(line))
    os.waitpid(child, 0)


def _line(pipe: FileIO, read: bytearray) -> bytes | None:
    """The next line, None at the end of the pipe or of the patience; ``read`` keeps what was read beyond it."""
    until = time.monotonic() + PATIENCE
    while b"\n" not in read:
        if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
            return None
        piece = pipe.read(4096)
        if not piece:
            return None
        read += piece
    line, _, rest = bytes(read).partition(b"\n")
    read[:] = rest
    return line


def _work(trial: Trial, numbers: Sequence[int], writing: int) -> None:
    try:
        gc.freeze()  # what was imported is not looked at in every trial
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + HEADROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for number in numbers:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # its signal ends the process
            found = ["nothing"]

            def run(number: int = number, found: list[str] = found) -> None:
                try:
                    found[0] = trial(number)
                except BaseException as error:
                    found[0] = f"{type(error).__name__}: {error}"

            peak = peak_above(run) if memory_is_measurable() else (run(), 0)[1]
            said = found[0][:400].encode(errors="backslashreplace").decode()
            os.write(writing, f"{json.dumps([number, said, peak])}\n".encode())
    finally:
        os._exit(0)
