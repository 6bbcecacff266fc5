"""Logged metrics: one JSON line per entry, and TensorBoard events if TensorBoard is installed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from semhitok.storage.atomic import write_text

FILE_NAME = "metrics.jsonl"


class RunningMean:
    """Means of named numbers since the last ``take``; a name may be absent from some entries."""

    def __init__(self):
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Add one entry."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """Return the means and reset."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


class MetricsWriter:
    """Appends entries to ``metrics.jsonl`` and to TensorBoard event files in ``tensorboard/``.

    Args:
        directory: directory of the run.
        step: optimizer steps done so far; entries of later steps, left by a killed process, are dropped.
    """

    def __init__(self, directory: Path, *, step: int = 0):
        self._path = directory / FILE_NAME
        _drop_entries_after(self._path, step)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _tensorboard(directory / "tensorboard", step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add an entry; non-finite numbers become null, which JSON can represent."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def has_entry(self, step: int, prefix: str) -> bool:
        """Whether an entry of this step has a name that starts with ``prefix``."""
        entries = (entry for entry in read_metrics(self._path) if entry["step"] == step)
        return any(name.startswith(prefix) for entry in entries for name in entry)

    def close(self) -> None:
        """Close all files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(path: Path) -> list[dict]:
    """Entries of a ``metrics.jsonl``; a last line truncated by a killed process is skipped."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


def _drop_entries_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = "".join(json.dumps(entry) + "\n" for entry in read_metrics(path) if entry["step"] <= step)
    write_text(path, kept)


def _tensorboard(directory: Path, step: int):
    """A TensorBoard writer, or None where TensorBoard (``pip install semhitok[training]``) is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory), purge_step=step + 1)
