"""``semhitok decode``: token ids to images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from semhitok.cli.arguments import Checkpoint, Count, Device
from semhitok.cli.progress import progress_bars
from semhitok.inference import DEFAULT_TOKENIZER


@dataclass(frozen=True)
class Arguments:
    """Decode token ids, as `semhitok encode` writes them, to PNG images."""

    ids: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IDS")]
    """File of ids: .npy, .json or .safetensors."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("decoded")
    """Folder to write to: 00000.png and so on."""
    model: Checkpoint = DEFAULT_TOKENIZER
    """The checkpoint that made the ids: a folder, a hub id, or the name of a bundled one."""
    batch_size: Count = 32
    """Number of images per batch."""
    device: Device = None
    """Device to run on: cpu, cuda, or the number of a GPU, such as 1 (the same as cuda:1)."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok decode")
    from semhitok.inference.loading import load_tokenizer
    from semhitok.inference.reconstruction import decode_ids
    from semhitok.inference.token_files import codes_per_token, load_ids

    ids, grid = load_ids(options.ids)
    model = load_tokenizer(options.model, options.device, encoder=False)
    if codes_per_token(ids) != model.codes_per_token:
        raise ValueError(
            f"{options.ids} holds {codes_per_token(ids)} codes per token, the model {options.model} has "
            f"{model.codes_per_token}"
        )
    number = 0
    with progress_bars() as advance:
        try:
            for number, image in enumerate(decode_ids(model, ids, grid, batch_size=options.batch_size), 1):
                options.out.mkdir(parents=True, exist_ok=True)
                image.save(options.out / f"{number - 1:05d}.png")
                advance("decoding", number, len(ids))
        except ValueError as error:
            raise ValueError(f"{options.ids} does not fit the model {options.model}: {error}") from error
    print(f"wrote {number} images to {options.out}")
    return 0
