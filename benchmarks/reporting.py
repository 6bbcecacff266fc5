"""Ratios as Markdown and JSON, with their aims; the command line of a single benchmark."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from benchmarks.measuring import Spread, Timing, paired_ratio
from PIL import Image

DEFAULT_FOLDER = Path("runs/bench")
PACKAGES = ("torch", "transformers", "vector-quantize-pytorch", "semhitok")


@dataclass(frozen=True)
class Aim:
    """The target of a ratio."""

    side: Literal["at least", "at most"]
    value: float

    def met(self, ratio: float) -> bool:
        return ratio >= self.value if self.side == "at least" else ratio <= self.value


@dataclass(frozen=True)
class Row:
    """Two amounts of one unit, ``ratio`` = left / right, and the ratio of CPU times if both are times."""

    what: str
    left: str
    left_amount: Spread
    right: str
    right_amount: Spread
    ratio: Spread
    unit: str
    cpu_ratio: float | None = None
    aim: Aim | None = None

    @classmethod
    def of_times(cls, what: str, left: tuple[str, Timing], right: tuple[str, Timing], *, aim: Aim | None = None) -> Row:
        """A row of two timings from the same rounds; the left one is the subject."""
        (left_name, left_timing), (right_name, right_timing) = left, right
        return cls(
            what,
            left_name,
            left_timing.seconds,
            right_name,
            right_timing.seconds,
            paired_ratio(left_timing.wall, right_timing.wall),
            "s",
            paired_ratio(left_timing.cpu, right_timing.cpu).median,
            aim,
        )

    @classmethod
    def of_amounts(
        cls, what: str, left: tuple[str, float], right: tuple[str, float], unit: str, *, aim: Aim | None = None
    ) -> Row:
        """A row of two numbers measured once, or known."""
        (left_name, left_amount), (right_name, right_amount) = left, right
        amounts = Spread.of([left_amount]), Spread.of([right_amount])
        return cls(
            what,
            left_name,
            amounts[0],
            right_name,
            amounts[1],
            Spread.of([left_amount / right_amount]),
            unit,
            None,
            aim,
        )


@dataclass(frozen=True)
class Report:
    """The results of one benchmark.

    Attributes:
        name: stem of its files.
        title: the question it answers.
        method: how it was measured, in a few sentences.
        pictures: by file name without its ending.
    """

    name: str
    title: str
    method: str
    rows: list[Row]
    pictures: dict[str, Image.Image] = field(default_factory=dict)

    def markdown(self) -> str:
        """Heading, method, table and pictures."""
        lines = [
            f"## {self.title}",
            "",
            self.method,
            "",
            "| | left | right | left / right | quartiles | by CPU time | aim |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            cells = [
                row.what,
                f"{row.left}: {amount(row.left_amount.median, row.unit)}",
                f"{row.right}: {amount(row.right_amount.median, row.unit)}",
                f"**{three_digits(row.ratio.median)}**",
                f"{three_digits(row.ratio.low)} to {three_digits(row.ratio.high)}",
                "" if row.cpu_ratio is None else three_digits(row.cpu_ratio),
                _verdict(row),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines + [f"\n![{name}]({name}.png)" for name in self.pictures])

    def write(self, folder: Path) -> None:
        """Write ``name.json``, ``name.md`` and the pictures."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "name": self.name,
            "title": self.title,
            "method": self.method,
            "machine": machine(),
            "rows": [asdict(row) for row in self.rows],
        }
        (folder / f"{self.name}.json").write_text(json.dumps(content, indent=1))
        (folder / f"{self.name}.md").write_text(self.markdown() + "\n")
        for name, picture in self.pictures.items():
            picture.save(folder / f"{name}.png")


def machine() -> str:
    """Threads and versions, in one sentence."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return (
        f"{torch.get_num_threads()} threads on {os.cpu_count()} CPUs, {device}, kernels for "
        f"{torch.backends.cpu.get_cpu_capability()}; Python {platform.python_version()}, {packages}."
    )


def three_digits(number: float) -> str:
    """Three significant digits, never in powers of ten."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{number:,.{decimals}f}"


def amount(number: float, unit: str) -> str:
    """A number with its unit; seconds and bytes as ms and MiB."""
    if unit == "s" and number < 1:
        return f"{three_digits(1000 * number)} ms"
    if unit == "bytes":
        return f"{three_digits(number / 2**20)} MiB"
    return f"{three_digits(number)} {unit}"


def run_alone(measure: Callable[[bool], Report], description: str | None) -> None:
    """Command line of one benchmark: measure, print, write."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    arguments = parser.parse_args()
    report = measure(arguments.quick)
    report.write(arguments.out)
    print(report.markdown())
    print(f"\n{machine()}")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that all benchmarks share."""
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and few rounds, to try it out; checks no aims"
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help=f"folder for results ({DEFAULT_FOLDER})")


def _verdict(row: Row) -> str:
    if row.aim is None:
        return ""
    return f"{row.aim.side} {row.aim.value:g}: {'met' if row.aim.met(row.ratio.median) else 'MISSED'}"
