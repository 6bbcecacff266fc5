"""The short form of the campaign against tampered checkpoints; the long one is in docs/experiments.md."""

from __future__ import annotations

import time
from pathlib import Path

from tests.tiny import processes


def short_campaign(folder: Path) -> None:
    """In a process without threads, from which others can be forked."""
    from benchmarks.hostile_configurations import run

    outcomes, faults = run(folder, range(60))
    assert not faults, faults
    assert outcomes["refused"] > outcomes["read"] > 5


def watched_trials() -> None:
    """One of each kind of fault."""
    from benchmarks import watched

    watched.SECONDS, watched.PATIENCE, watched.BYTES = 0.5, 3.0, 2**26
    trials = [
        lambda: "read",
        lambda: 1 / 0,
        lambda: any(iter(int, 1)),
        lambda: time.sleep(60),
        lambda: len(b"x" * 2**27) and "refused",
        lambda: b"x" * 2**34,
        lambda: "refused",
    ]
    outcomes, faults = watched.campaign(lambda number: str(trials[number]()), range(7))
    assert outcomes == {"read": 1, "refused": 1, "fault": 5}, faults
    wanted = ("1: ZeroDivisionError", "2: 0.5 s", "3: hangs for 3 s", "4: refused with 1", "5: MemoryError")
    assert all(f"trial {said}" in fault for said, fault in zip(wanted, faults, strict=True)), faults


def in_process(target, *arguments: object) -> int | None:
    process = processes.Process(target=target, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def test_tampered_checkpoints_load_or_are_refused_in_a_sentence(tmp_path: Path):
    assert in_process(short_campaign, tmp_path) == 0


def test_trials_that_fail_hang_or_take_all_memory_are_found():
    assert in_process(watched_trials) == 0
