"""Results of finished experiments: one small JSON file per seed, so that a table can grow over several sessions."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from semhitok.storage.atomic import write_text


@dataclass(frozen=True)
class Section:
    """A measurement of a finished run that was made later, see ``measurements``; fields as in ``Result``."""

    settings: dict[str, Any]
    metrics: dict[str, float]
    seconds: float
    environment: dict[str, str]


@dataclass(frozen=True)
class Result:
    """One experiment with one seed.

    Attributes:
        experiment: its name.
        seed: seed of weights, codebooks and the order of the data.
        settings: all of its settings.
        metrics: measured figures by name.
        seconds: wall-clock time of training and measuring in this process; reused results of others are not counted.
        environment: data, device, software, date, commit.
        sections: later measurements by name.
    """

    experiment: str
    seed: int
    settings: dict[str, Any]
    metrics: dict[str, float]
    seconds: float
    environment: dict[str, str]
    sections: dict[str, Section] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float]:
        """All measured figures by name, those of later measurements included."""
        return self.metrics | {name: value for each in self.sections.values() for name, value in each.metrics.items()}


def result_file(folder: Path, experiment: str, seed: int) -> Path:
    """Path of the result of an experiment with a seed."""
    return folder / f"{experiment}-seed{seed}.json"


def save_result(folder: Path, result: Result) -> Path:
    """Write a result atomically."""
    path = result_file(folder, result.experiment, result.seed)
    fields = asdict(result)
    if not result.sections:
        del fields["sections"]
    write_text(path, json.dumps(fields, indent=1))
    return path


def load_result(path: Path) -> Result:
    """Read a result.

    Raises:
        ValueError: the file is not a result.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        sections = {name: Section(**each) for name, each in fields.pop("sections", {}).items()}
        return Result(**fields, sections=sections)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not the result of an ablation ({error}); move it away to run it again") from error


def finished(folder: Path, experiment: str, settings: dict[str, Any], seeds: Iterable[int]) -> list[Result]:
    """The existing results of an experiment, in the order of the seeds.

    Raises:
        ValueError: a result was made with other settings than the experiment has now.
    """
    found = existing(folder, experiment, seeds)
    for result in found:
        differing = changed_settings(result.settings, settings)
        if differing:
            path = result_file(folder, experiment, result.seed)
            raise ValueError(
                f"{path} was made with other settings ({', '.join(differing[:5])}); move it away to run it again"
            )
    return found


def existing(folder: Path, experiment: str, seeds: Iterable[int]) -> list[Result]:
    """The existing results of an experiment in the order of the seeds, whatever their settings."""
    paths = [result_file(folder, experiment, seed) for seed in seeds]
    return [load_result(path) for path in paths if path.exists()]


def changed_settings(before: Any, now: Any) -> list[str]:
    """The settings whose values differ, as "name before -> now"; those on one side only (added or dropped since) do not
    count."""
    return _changed(before, json.loads(json.dumps(now)), "")


def _changed(before: Any, now: Any, name: str) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        shared = [key for key in before if key in now]
        return [entry for key in shared for entry in _changed(before[key], now[key], f"{name}.{key}".strip("."))]
    return [] if before == now else [f"{name} {before} -> {now}"]


def environment(device: torch.device, **facts: str) -> dict[str, str]:
    """Date, commit (if the package is in a git checkout), software, device and further facts."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "software": f"Python {platform.python_version()}, torch {torch.__version__}",
        "device": f"{name}, {torch.get_num_threads()} threads",
        **facts,
    }


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=7"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
