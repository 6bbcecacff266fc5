"""``semhitok encode``: images to token ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from semhitok.cli.arguments import Checkpoint, Count, Device, ImagePaths
from semhitok.cli.progress import progress_bars
from semhitok.inference import DEFAULT_TOKENIZER
from semhitok.types import FitMode


@dataclass(frozen=True)
class Arguments:
    """Encode images to token ids: one row of ids per image, in the order of the files.

    Images that cannot be read are skipped, reported and counted.
    """

    images: ImagePaths
    """Image files, or folders of them."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("ids.npy")
    """File to write: .npy holds ids (images, rows, columns), with a last axis if a token has several codes, and the names of
    the images are written beside it as .names.json; .json and .safetensors hold ids, grid and names."""
    model: Checkpoint = DEFAULT_TOKENIZER
    """A folder, a hub id, or the name of a bundled checkpoint."""
    fit: FitMode = "crop"
    """How to make images square: crop the centre, or resize (squeeze)."""
    batch_size: Count = 32
    """Number of images per batch."""
    device: Device = None
    """Device to run on: cpu, cuda, or the number of a GPU, such as 1 (the same as cuda:1)."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok encode")
    import torch

    from semhitok.cli.skipping import SkippedImages
    from semhitok.data.folder import image_files
    from semhitok.inference.loading import load_tokenizer
    from semhitok.inference.reconstruction import encode_images
    from semhitok.inference.token_files import check_format, save_ids

    check_format(options.out)
    files = image_files(options.images)
    model = load_tokenizer(options.model, options.device)
    parts, done, skipped = [], 0, SkippedImages()
    with progress_bars() as advance:
        batches = encode_images(model, files, fit=options.fit, batch_size=options.batch_size, on_bad=skipped.add)
        for encoded in batches:
            parts.append(encoded.ids)
            done += len(encoded.ids)
            advance("encoding", done + len(skipped), len(files))
    skipped.report(len(files))
    ids = torch.cat(parts)
    grid = model.config.grid(model.config.image_size, model.config.image_size)
    save_ids(options.out, ids, grid, [file.name for file in skipped.without(files)])
    codes = f" of {model.codes_per_token} codes" if model.codes_per_token > 1 else ""
    print(
        f"wrote {options.out}: {len(ids)} images, {grid[0]}x{grid[1]} tokens{codes} each, ids below {model.vocab_size}"
    )
    return 0
