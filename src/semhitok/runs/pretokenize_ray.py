"""``tokenize_shard`` on a Ray cluster: a pool of actors, each with the tokenizer loaded, takes one shard after the other.

Ray Data distributes the shards, restarts actors that die and repeats their shard; finished token files are skipped, so that a job
that is started again goes on. All machines need the data and the output folder under the same path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from semhitok.data.shards import Shard
from semhitok.inference.loading import load_tokenizer
from semhitok.runs.pretokenize import Reading, ShardResult, token_format, tokenize_shard
from semhitok.storage.objects import is_remote


class _Worker:
    """Lives in an actor."""

    def __init__(self, model: str, device: str | None, out: Path, reading: Reading) -> None:
        self.tokenizer = load_tokenizer(model, device)
        self.form, self.out, self.readers = token_format(self.tokenizer, reading), out, reading.readers

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = Shard(row["name"], Path(row["path"]), row["stamp"], tuple(row["part"]) if row["part"] else None)
        try:
            result = tokenize_shard(shard, self.out, self.tokenizer, self.form, self.readers)
        except (ValueError, OSError) as error:  # Ray would wrap it in tracebacks, and lose its sentence
            return asdict(ShardResult(shard.name)) | {"fatal": str(error)}
        return asdict(result) | {"fatal": None}


def tokenize_with_ray(
    shards: Sequence[Shard],
    out: Path,
    model: str,
    reading: Reading,
    *,
    workers: int,
    device: str | None = None,
    gpus: float = 0,
) -> Iterator[ShardResult]:
    """The results of all shards, in any order.

    Args:
        shards: what to tokenize.
        out: folder to write to.
        model: see ``inference.loading.load_tokenizer``.
        reading: how images are read.
        workers: number of actors.
        device: device of each actor; None takes a GPU if it has one.
        gpus: GPUs that Ray reserves for each actor; a share below 1 is possible.

    Raises:
        ValueError: Ray is not installed, or an error of ``tokenize_shard``.
    """
    ray = _import_ray()
    rows = [
        {
            "name": shard.name,
            "path": str(shard.path if is_remote(shard.path) else shard.path.absolute()),
            "stamp": shard.stamp,
            "part": list(shard.part or ()),
        }
        for shard in shards
    ]
    found = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Worker,
        fn_constructor_args=(model, device, out.absolute(), reading),
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
        num_cpus=1,
        num_gpus=gpus,
    )
    try:
        for row in found.iter_rows():
            fatal = row.pop("fatal")
            if fatal is not None:
                raise ValueError(fatal)
            yield ShardResult(**row)
    except ray.exceptions.RayError as error:
        raise ValueError(f"Ray gave up: {' '.join(str(error).split())[:500]}") from error


def _import_ray() -> ModuleType:
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.data  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("tokenizing on a cluster needs the package ray: pip install semhitok[ray].") from error
    return ray
