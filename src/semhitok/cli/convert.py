"""``semhitok convert``: convert checkpoints released by others to this package's format."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Arguments:
    """Convert a checkpoint released by others to a folder that loads like any checkpoint of this package.

    Code in the file is never run. Every tensor is used or left out for a stated reason; a file of another model is
    rejected. The folder holds the model, its image processor and CLIP's text tokenizer.
    """

    kind: Annotated[Literal["unitok"], tyro.conf.Positional, tyro.conf.arg(metavar="KIND")]
    """What to convert: unitok, the training checkpoint that UniTok's authors released (unitok_tokenizer.pth)."""
    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """The released file."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """New or empty folder."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the stored weights; codebooks, projections and image head stay in float32."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok convert")
    import torch

    from semhitok.tokenizers.unitok.convert import convert_unitok

    done = convert_unitok(options.checkpoint, options.out, dtype=getattr(torch, options.dtype))
    print(f"converted {options.checkpoint}: {done.parameters:,} numbers")
    for reason, number in Counter(done.left_out.values()).items():
        print(f"left out, {reason}: {number} ({_example(done.left_out, reason)})")
    for file in sorted(done.folder.iterdir()):
        print(f"wrote {file} ({file.stat().st_size / 2**20:.2f} MB)")
    return 0


def _example(left_out: dict[str, str], reason: str) -> str:
    names = [name for name, why in left_out.items() if why == reason]
    return names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
