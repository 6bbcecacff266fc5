"""Crashes at file operations: a run ends itself just before its n-th operation in its folder, is resumed, and compared.

    python -m benchmarks.crash_points --folder FOLDER [--seed 0] [--trials 90] [--two-ranks 18]

Operations: opening a file to write, renaming, removing, making and removing folders, flushing (``fsync``), and writing rows of
a cache and entries of the log. At every second flush the file loses its second half first, as when power fails before the data
have reached the disk; an entry or row is written by half. Points are spread evenly over all operations of a run, moved by
the seed. Of two ranks the main one, which writes, crashes.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.interruptions import CRASHED, SYSTEMS, Outcome, Place, join, options, report, start

from semhitok.storage.array_cache import ArrayCacheWriter
from semhitok.training.metrics import MetricsWriter

EVENTS = {"os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,), "open": (0,)}
"""Operations that the interpreter announces, and which of their arguments are paths."""


class Operations:
    """Counts operations on files in a folder; ends the process just before the one numbered ``crash_at``."""

    def __init__(self, directory: Path, crash_at: int | None, record: Path | None = None) -> None:
        self.directory, self.crash_at, self.record = os.path.realpath(directory), crash_at, record
        self.kinds: list[str] = []
        self.flushes = 0

    def install(self) -> None:
        """For the rest of this process."""
        sys.addaudithook(self._announced)
        flush, put, write = os.fsync, ArrayCacheWriter._put, MetricsWriter.write

        def flushing(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            self.flushes += 1
            torn = self.flushes % 2 == 0 and os.path.isfile(path)
            self.count(
                "torn fsync" if torn else "fsync", path, lambda: torn and os.truncate(path, os.path.getsize(path) // 2)
            )
            flush(descriptor)

        def putting(writer: Any, offset: int, data: bytes) -> None:
            self.count("cache row", str(writer._temporary), lambda: put(writer, offset, data[: len(data) // 2]))
            put(writer, offset, data)

        def logging(writer: Any, step: int, values: Any) -> None:
            def half() -> None:
                writer._file.write('{"step": 1')
                writer._file.flush()

            self.count("log entry", str(writer._path), half)
            write(writer, step, values)

        os.fsync, ArrayCacheWriter._put, MetricsWriter.write = flushing, putting, logging  # type: ignore[assignment]

    def count(self, kind: str, path: str, half: Callable[[], object] = lambda: None) -> None:
        """One operation; ``half`` does a part of it before the process ends."""
        if not os.path.abspath(path).startswith(self.directory):
            return
        self.kinds.append(kind)
        if self.crash_at == len(self.kinds):
            half()
            os._exit(CRASHED)

    def _announced(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or not isinstance(arguments[0], str | os.PathLike):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        self.count(event, os.fspath(arguments[0]))


def crashing(
    place: Place, system: str, directory: Path, crash_at: int | None, record: Path | None = None
) -> Callable[[], object]:
    """The run of a system, in which the main rank crashes; ``record`` receives the kind of each of its operations."""

    def run() -> None:
        operations = Operations(directory, crash_at)
        if os.environ.get("RANK", "0") == "0":
            operations.install()
        place.run(system, directory)()
        if record is not None and os.environ.get("RANK", "0") == "0":
            record.write_text("\n".join(operations.kinds))

    return run


def recorded(place: Place, system: str, ranks: int) -> list[str]:
    """The kinds of all operations of an uninterrupted run."""
    name = f"recorded-{system}-{ranks}"
    record = place.folder / f"{name}.txt"
    codes = join(start(crashing(place, system, place.folder / name, None, record), place.folder / f"{name}.log", ranks))
    if codes != [0] * ranks:
        raise RuntimeError(f"{name} ended with {codes}")
    return record.read_text().splitlines()


def crash(place: Place, system: str, ranks: int, point: int, kind: str) -> Outcome:
    """A run that crashes at one point."""
    name = f"{system}-{ranks}-{point}"
    directory, log = place.folder / name, place.folder / f"{name}.log"
    codes = join(start(crashing(place, system, directory, point), log, ranks), until=90)
    title = f"{system}, {ranks} ranks, operation {point} ({kind})"
    if codes[0] != CRASHED or None in codes:
        return Outcome(title, 0, [], f"the run that was to crash ended with {codes}: {log.read_text()[-1500:]}")
    return place.outcome(title, 1, system, directory, log, ranks)


def campaign(
    place: Place, seed: int, trials: int, two_ranks: int, systems: Sequence[str] = tuple(SYSTEMS)
) -> tuple[list[Outcome], Counter[str]]:
    """``trials`` crash points of one process and ``two_ranks`` of two, in equal parts over the systems."""
    generator, outcomes = random.Random(seed), list[Outcome]()
    reached: Counter[str] = Counter()
    for ranks, wanted in ((1, trials), (2, two_ranks)):
        for place_in_turn, system in enumerate(systems):
            count = (wanted + place_in_turn) // len(systems)
            kinds = recorded(place, system, ranks) if count else []
            for each in range(count):
                point = int((each + generator.random()) * len(kinds) / count) + 1
                outcomes.append(crash(place, system, ranks, point, kinds[point - 1]))
                reached[kinds[point - 1]] += 1
            print(f"{ranks} ranks: {system}, {count} of {len(kinds)} operations", flush=True)
    return outcomes, reached


def main() -> int:
    """Run the campaign."""
    arguments = options(__doc__, 90).parse_args()
    begun = time.monotonic()
    outcomes, reached = campaign(Place(arguments.folder), arguments.seed, arguments.trials, arguments.two_ranks)
    for kind, count in sorted(reached.items()):
        print(f"{kind}: {count}")
    return report(outcomes, begun)


if __name__ == "__main__":
    raise SystemExit(main())
