"""``semhitok decode``: token ids to images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from semhitok.cli.ids import load_ids
from semhitok.cli.loading import SHIPPED, load_tokenizer
from semhitok.data.transforms import to_pil


@dataclass(frozen=True)
class Arguments:
    """Token ids, as `semhitok encode` writes them, to PNG images."""

    ids: Annotated[Path, tyro.conf.Positional]
    """File of ids: .npy, .json or .safetensors."""
    out: Path = Path("decoded")
    """Folder to write to."""
    model: str = SHIPPED
    """The checkpoint that made the ids: a folder, a hub id, or the name of a shipped one."""
    batch_size: int = 32
    """Images at a time."""
    device: str | None = None
    """cpu, cuda ...; by default a GPU where there is one."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok decode")
    if options.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {options.batch_size}")
    ids, grid = load_ids(options.ids)
    model = load_tokenizer(options.model, options.device, encoder=False)
    options.out.mkdir(parents=True, exist_ok=True)
    number = 0
    for part in ids.split(options.batch_size):
        for image in model.decode(part.to(model.device), grid):
            to_pil(image.float().cpu()).save(options.out / f"{number:05d}.png")
            number += 1
    print(f"wrote {number} images to {options.out}")
    return 0
