"""Digests of files, tensors and commands, by name; see ``digests``."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from semhitok.cli import main as command_line

DATE = re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d UTC)?")
UNSTABLE = {"transformers_version", "software", "_name_or_path"}  # the last is a place on this machine


class Digests:
    """What was found, by name."""

    def __init__(self) -> None:
        self.found: dict[str, str | list[str | None]] = {}

    def add(self, name: str, content: bytes | str) -> None:
        """Keep the digest of bytes, or of a text without its dates."""
        assert name not in self.found, name
        data = DATE.sub("DATE", content).encode() if isinstance(content, str) else content
        self.found[name] = hashlib.sha256(data).hexdigest()

    def tensor(self, name: str, tensor: Tensor) -> None:
        """Type, shape and values."""
        values = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        self.add(name, f"{tensor.dtype} {tuple(tensor.shape)}".encode() + values)

    def file(self, path: Path) -> None:
        """What a file holds: pixels, tensors and JSON whatever their encoding, other files byte for byte."""
        match path.suffix:
            case ".png":
                image = Image.open(path)
                self.add(str(path), f"{image.mode} {image.size}".encode() + image.tobytes())
            case ".npy":
                self.tensor(str(path), torch.from_numpy(np.load(path)))
            case ".safetensors":
                with safe_open(path, framework="pt") as file:
                    self.add(str(path), json.dumps(file.metadata(), sort_keys=True))
                    for name in sorted(file.keys()):
                        self.tensor(f"{path}: {name}", file.get_tensor(name))
            case ".json":
                self.add(str(path), json.dumps(_stable(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True))
            case ".md" | ".txt" | ".jinja":
                self.add(str(path), path.read_text(encoding="utf-8"))
            case _:
                self.add(str(path), path.read_bytes())

    def folder(self, *folders: str) -> None:
        """Every file in it."""
        for path in sorted(path for folder in folders for path in Path(folder).rglob("*") if path.is_file()):
            self.file(path)

    def run(self, command: str, stdin: str = "") -> None:
        """Run a command and keep what it prints."""
        self.add(f"semhitok {command} {stdin}".strip(), run(command, stdin=stdin))

    def training(self, *runs: str) -> None:
        """Log, settings, pictures and model of training runs."""
        for place in map(Path, runs):
            entries = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
            for name in sorted({name for entry in entries for name in entry if "second" not in name}):
                values = [repr(entry[name]) if name in entry else None for entry in entries]
                self.found[f"{place}/metrics.jsonl: {name}"] = values
            self.folder(f"{place}/model", f"{place}/previews")
            if (place / "recipe.json").exists():
                self.file(place / "recipe.json")


def run(command: str, *, code: int = 0, stdin: str = "") -> str:
    """What a command prints; it must end with this exit code."""
    begun = time.perf_counter()
    with redirect_stdout(io.StringIO()) as printed, patch("sys.stdin", io.StringIO(stdin)):
        found = command_line(shlex.split(command))
    print(f"{time.perf_counter() - begun:.1f} s: semhitok {command}", file=sys.stderr, flush=True)
    assert found == code, f"exit code {found}, not {code}, of semhitok {command}"
    return printed.getvalue()


def _stable(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _stable(value) for name, value in content.items() if name not in UNSTABLE}
    return [_stable(value) for value in content] if isinstance(content, list) else content


def steps(*stages: str, count: int = 20, batch: int = 4) -> str:
    """The options for short runs of stages with every step in the log."""
    loops = [f"--{stage}loop" for stage in stages]
    return " ".join(f"{loop}.steps {count} {loop}.batch-size {batch} {loop}.log-every 1" for loop in loops)
