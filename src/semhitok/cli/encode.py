"""``semhitok encode``: images to token ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from semhitok.cli.arguments import Checkpoint, Count, Device, ImagePaths
from semhitok.cli.progress import progress_bars
from semhitok.data.transforms import FitMode
from semhitok.inference.loading import SHIPPED, image_files, image_processor, load_tokenizer
from semhitok.inference.token_files import check_format, save_ids


@dataclass(frozen=True)
class Arguments:
    """Images to token ids: one row of ids per image, in the order of the files."""

    images: ImagePaths
    """Image files, or folders of them."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("ids.npy")
    """File to write: .npy holds ids (images, rows, columns), with a last axis where a token has several codes; .json and
    .safetensors hold ids, grid and names."""
    model: Checkpoint = SHIPPED
    """A folder, a hub id, or the name of a shipped checkpoint."""
    fit: FitMode = "crop"
    """What to do with other shapes: crop the centre, or resize (squeeze)."""
    batch_size: Count = 32
    """Images at a time."""
    device: Device = None
    """cpu, cuda, cuda:1 ..."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok encode")
    check_format(options.out)
    files = image_files(options.images)
    model = load_tokenizer(options.model, options.device)
    processor = image_processor(model)
    parts = []
    with progress_bars() as advance:
        for start in range(0, len(files), options.batch_size):
            pixel_values = processor(files[start : start + options.batch_size], mode=options.fit)["pixel_values"]
            parts.append(model.encode(pixel_values.to(model.device)).ids.cpu())
            advance("encoding", start + len(parts[-1]), len(files))
    ids = torch.cat(parts)
    grid = model.config.grid(model.config.image_size, model.config.image_size)
    save_ids(options.out, ids, grid, [file.name for file in files])
    codes = f" of {model.codes_per_token} codes" if model.codes_per_token > 1 else ""
    print(
        f"wrote {options.out}: {len(ids)} images, {grid[0]}x{grid[1]} tokens{codes} each, ids below {model.vocab_size}"
    )
    return 0
