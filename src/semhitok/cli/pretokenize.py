"""``semhitok pretokenize``: token ids of whole data sets, as parquet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from semhitok.cli.arguments import Checkpoint, Count, Device, UsageError, default
from semhitok.cli.progress import progress_bars
from semhitok.inference import DEFAULT_TOKENIZER
from semhitok.types import FitMode

if TYPE_CHECKING:
    from semhitok.runs.pretokenize import ShardResult

LISTED = 20  # shards that cannot be read, printed one by one


@dataclass(frozen=True)
class Arguments:
    """Encode a whole data set to token files: parquet with ids, captions, keys and sizes, one file for each shard.

    Files that are there already are skipped, so an interrupted run goes on when it is started again. Images that cannot be
    read are listed with the reason in rejects/ and change nothing else. A language model trains from the folder (`semhitok
    train RECIPE --data FOLDER`) without seeing an image. Under torchrun each process takes its share of the shards.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Webdataset tars (a file, a folder, a pattern such as "train-{0000..0049}.tar"), parquet files with images, or a folder of
    images."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder to write to."""
    model: Checkpoint = DEFAULT_TOKENIZER
    """A folder, a hub id, or the name of a bundled checkpoint."""
    fit: FitMode = "crop"
    """How to make images square: crop the centre, or resize (squeeze)."""
    batch_size: Count = 32
    """Number of images per batch; the last one of a shard is filled up."""
    readers: Count = 4
    """Threads that read and decode images while the model computes."""
    draft: bool = False
    """Decode JPEG files at 1/2, 1/4 or 1/8 of their size where twice the model's image size is left: faster, and a few ids differ.
    The token files say so."""
    images_per_shard: Count = 1000
    """Images of a token file, if the data are a folder of images."""
    worker: Annotated[int | None, tyro.conf.arg(metavar="N"), default("$RANK, or 0")] = None
    """Number of this process, from 0; it takes every --of-th shard."""
    of: Annotated[int | None, tyro.conf.arg(metavar="N"), default("$WORLD_SIZE, or 1")] = None
    """Number of processes that share the work; in a SLURM job, --worker $SLURM_PROCID --of $SLURM_NTASKS."""
    ray: Annotated[int | None, tyro.conf.arg(metavar="ACTORS", help_behavior_hint="")] = None
    """Run on the Ray cluster that this machine belongs to, or on this machine, with so many actors."""
    ray_gpus: Annotated[float, tyro.conf.arg(metavar="GPUS")] = 0
    """GPUs of each actor."""
    device: Device = None
    """Device to run on: cpu, cuda, or the number of a GPU, such as 1 (the same as cuda:1)."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok pretokenize")
    worker, of = _place(options)
    from semhitok.data.shards import find_shards
    from semhitok.data.token_files import import_pyarrow
    from semhitok.runs.pretokenize import Reading, shards_of, tokenize_shards

    import_pyarrow()
    shards = find_shards(options.data, options.images_per_shard)
    reading = Reading(options.fit, options.batch_size, options.readers, options.draft)
    if options.ray is None:
        from semhitok.inference.loading import load_tokenizer

        shards = shards_of(shards, worker, of)
        results = tokenize_shards(shards, options.out, load_tokenizer(options.model, _device(options)), reading)
    else:
        from semhitok.runs.pretokenize_ray import tokenize_with_ray

        results = tokenize_with_ray(
            shards,
            options.out,
            options.model,
            reading,
            workers=options.ray,
            device=options.device,
            gpus=options.ray_gpus,
        )
    return _report(results, len(shards), options.out)


def _place(options: Arguments) -> tuple[int, int]:
    if (options.worker is None) != (options.of is None):
        raise UsageError("--worker and --of belong together, such as --worker 3 --of 16")
    if options.ray is not None and options.worker is not None:
        raise UsageError("--ray distributes the shards itself: leave out --worker and --of")
    if options.ray is not None and options.ray < 1:
        raise UsageError(f"--ray needs at least 1 actor, got {options.ray}")
    if options.worker is not None and options.of is not None:
        if not 0 <= options.worker < options.of:
            raise UsageError(f"workers are counted from 0: worker {options.worker} of {options.of} does not exist")
        return options.worker, options.of
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _device(options: Arguments) -> str | None:
    """Under torchrun each process takes the GPU of its local rank."""
    from semhitok.distributed import choose_device

    chosen = choose_device(options.device)
    if chosen.type == "cuda" and chosen.index is None and "LOCAL_RANK" in os.environ:
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return options.device


def _report(results: Iterator[ShardResult], shards: int, out: Path) -> int:
    found = []
    with progress_bars() as advance:
        for result in results:
            found.append(result)
            advance("tokenizing shards", len(found), shards)
    failed = [result for result in found if result.error is not None]
    for result in failed[:LISTED]:
        print(f"skipped {result.error}")
    images, rejected = sum(result.images for result in found), sum(result.rejected for result in found)
    before = sum(result.done_before for result in found)
    earlier = f", {before:,} of them written before" if before else ""
    print(f"{out}: {images:,} images in {len(found) - len(failed):,} token files{earlier}")
    if rejected:
        print(f"{rejected:,} bad images left out, listed in {out / 'rejects'}")
    if failed:
        raise ValueError(f"{len(failed)} of {len(found)} shards could not be read, nothing was written for them")
    return 0
