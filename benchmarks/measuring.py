"""Time and memory of two sides in one run: interleaved and repeated, with their spread.

Times are wall-clock times. CPU time over all threads is reported as well: other processes do not inflate it, but threads
that wait for each other do.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

Operation = Callable[[], object]
Build = Callable[..., Operation]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Spread of at least one value; quartiles interpolate between values and never leave their range."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def scaled(self, factor: float) -> Spread:
        """The spread in another unit; ``factor`` must be above 0."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Timing:
    """Seconds of each round, in wall-clock time and in CPU time over all threads."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def seconds(self) -> Spread:
        return Spread.of(self.wall)


def interleaved(sides: Mapping[str, Operation], *, rounds: int) -> dict[str, Timing]:
    """Time each side once per round, in turn, after one unmeasured round; odd rounds run in reverse order.

    Drift (clock rates, other processes) then affects all sides alike, and none always runs on the caches left by the same
    other side.
    """
    for operation in sides.values():
        operation()
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in reversed(list(sides)) if turn % 2 else sides:
            synchronize()
            begun, cpu_begun = time.perf_counter(), time.process_time()
            sides[name]()
            synchronize()
            wall[name].append(time.perf_counter() - begun)
            cpu[name].append(time.process_time() - cpu_begun)
    return {name: Timing(tuple(wall[name]), tuple(cpu[name])) for name in sides}


def synchronize() -> None:
    """Wait for the GPU, if this process has used one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def paired_ratio(left: Sequence[float], right: Sequence[float]) -> Spread:
    """Spread of left / right per round, so that slow rounds cancel out."""
    return Spread.of([a / b for a, b in zip(left, right, strict=True)])


def memory_is_measurable() -> bool:
    """Whether the kernel lets a process reset its peak memory (Linux)."""
    return os.access("/proc/self/clear_refs", os.W_OK)


def peak_memory(build: Build, *arguments: object) -> int:
    """Bytes by which one call of an operation raises resident memory above what its inputs occupy, at the peak.

    In a fresh process, ``build(*arguments)`` makes the inputs and returns the operation, freed memory is returned to the
    system, the kernel's peak is reset, and the operation runs once. Buffers that libraries allocate on first use count,
    so this is an upper bound.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_above_inputs, build, arguments).result()


def _peak_above_inputs(build: Build, arguments: tuple[object, ...]) -> int:
    return peak_above(build(*arguments))


def peak_above(operation: Operation) -> int:
    """Bytes by which an operation raises this process's resident memory at the peak."""
    gc.collect()
    # Memory freed during building would otherwise be reused without being counted.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    operation()
    return max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    """A size from /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024
    raise RuntimeError(f"/proc/self/status has no field {field}")
