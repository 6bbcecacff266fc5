from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks.measuring import (
    Operation,
    Spread,
    Timing,
    interleaved,
    memory_is_measurable,
    paired_ratio,
    peak_memory,
)


def test_spread_is_median_and_quartiles():
    values = [5.0, 1.0, 4.0, 2.0, 9.0, 7.0]
    low, median, high = np.percentile(values, [25, 50, 75])
    assert Spread.of(values) == Spread(median=pytest.approx(median), low=pytest.approx(low), high=pytest.approx(high))
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)
    assert Spread(2.0, 1.0, 4.0).scaled(0.5) == Spread(1.0, 0.5, 2.0)


def test_a_ratio_is_taken_round_by_round():
    # The second round was ten times slower for both: the ratio does not see it, a ratio of medians of two would.
    assert paired_ratio([2.0, 40.0, 2.0], [1.0, 20.0, 1.0]) == Spread(2.0, 2.0, 2.0)
    assert paired_ratio([1.0, 6.0, 4.0], [1.0, 2.0, 2.0]).median == 2.0


def test_sides_take_turns_and_the_first_round_is_not_measured():
    calls: list[str] = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: (len(timing.wall), len(timing.cpu)) for name, timing in times.items()} == {"a": (3, 3), "b": (3, 3)}


def test_times_are_wall_clock_and_cpu_time(monkeypatch: pytest.MonkeyPatch):
    clock = {"wall": 0.0, "cpu": 0.0}
    monkeypatch.setattr("benchmarks.measuring.time.perf_counter", lambda: clock["wall"])
    monkeypatch.setattr("benchmarks.measuring.time.process_time", lambda: clock["cpu"])

    def operation() -> None:
        clock["wall"] += 2.0
        clock["cpu"] += 3.0

    assert interleaved({"": operation}, rounds=2)[""] == Timing(wall=(2.0, 2.0), cpu=(3.0, 3.0))


def build_allocation(megabytes: int) -> Operation:
    inputs = torch.ones(48 * 2**18)  # 48 MiB that must not count

    def operation() -> float:
        for _ in range(3):  # one after another: the peak is one of them
            torch.full((megabytes * 2**18,), float(inputs[0]))
        return 0.0

    return operation


@pytest.mark.skipif(not memory_is_measurable(), reason="needs Linux")
def test_peak_memory_is_what_the_operation_adds_at_its_worst():
    # Buffers of the libraries may come on top, never another allocation or the inputs.
    assert 80 * 2**20 <= peak_memory(build_allocation, 80) < 110 * 2**20
