"""``semhitok encode``: images to token ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from semhitok.cli.ids import save_ids
from semhitok.cli.loading import SHIPPED, image_files, image_processor, load_tokenizer


@dataclass(frozen=True)
class Arguments:
    """Images to token ids: one row of ids per image, in the order of the files."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Image files or folders."""
    out: Path = Path("ids.npy")
    """File to write: .npy (B, rows, columns), .json or .safetensors (ids, grid, names)."""
    model: str = SHIPPED
    """Checkpoint: a folder, a hub id, or the name of a shipped one."""
    fit: Annotated[str, tyro.conf.arg(metavar="{crop,resize}")] = "crop"
    """What to do with other shapes: crop the centre, or resize (squeeze)."""
    batch_size: int = 32
    """Images at a time."""
    device: str | None = None
    """cpu, cuda ...; by default a GPU where there is one."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok encode")
    if options.fit not in ("crop", "resize"):
        raise ValueError(f"fit must be crop or resize, got {options.fit!r}")
    if options.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {options.batch_size}")
    files = image_files(options.images)
    model = load_tokenizer(options.model, options.device)
    processor = image_processor(model)
    parts = []
    for start in range(0, len(files), options.batch_size):
        pixel_values = processor(files[start : start + options.batch_size], mode=options.fit)["pixel_values"]
        encoded = model.encode(pixel_values.to(model.device))
        assert encoded.ids is not None
        parts.append(encoded.ids.cpu())
    ids = torch.cat(parts)
    grid = model.config.grid(model.config.image_size, model.config.image_size)
    save_ids(options.out, ids, grid, [file.name for file in files])
    print(f"wrote {options.out}: {len(ids)} images, {grid[0]}x{grid[1]} tokens each, ids below {model.vocab_size}")
    return 0
