"""All benchmarks, each in its own process, as one table of ratios.

    python -m benchmarks [--quick] [--out FOLDER] [--only NAME ...]

Writes ``NAME.json``, ``NAME.md`` and pictures for each, and ``benchmarks.md`` and ``benchmarks.json`` for all. A missed
aim is reported and is not an error, as it may be due to the machine. If a benchmark fails, the others still run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from benchmarks.reporting import add_options, machine

NAMES = (
    "sghc_lookup",
    "ema_step",
    "encode_overhead",
    "training_parts",
    "beside_janus",
    "scaling",
    "guidance",
    "large_head",
    "language_tokens",
)
GPU_NAMES = ("accelerator",)


def main() -> int:
    """Run the selected benchmarks; exit code 1 if one of them failed."""
    available = NAMES + GPU_NAMES if torch.cuda.is_available() else NAMES
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--only", nargs="+", choices=available, default=available, help="benchmarks to run")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    done, failed = [], []
    for name in arguments.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        begun = time.perf_counter()
        command = [sys.executable, "-m", f"benchmarks.{name}", "--out", str(arguments.out)]
        process = subprocess.run(
            command + ["--quick"] * arguments.quick, stdout=subprocess.PIPE, text=True, check=False
        )
        (failed if process.returncode else done).append(name)
        print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    text = joined(arguments.out, done)
    print(text)
    for name in failed:
        print(f"{name} failed", file=sys.stderr)
    return 1 if failed else 0


def joined(folder: Path, names: list[str]) -> str:
    """Join the results into ``benchmarks.md`` (returned) and ``benchmarks.json``."""
    parts = [(folder / f"{name}.md").read_text() for name in names]
    text = "\n".join(["# Benchmarks\n", machine() + "\n", *parts])
    (folder / "benchmarks.md").write_text(text)
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name in names}
    (folder / "benchmarks.json").write_text(json.dumps(found, indent=1))
    return text


if __name__ == "__main__":
    sys.exit(main())
