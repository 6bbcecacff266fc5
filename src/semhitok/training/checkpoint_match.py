"""A stored state and the task that is to take it over: do they belong together, and which rank needs which part?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semhitok.distributed.shard_files import placed_like, read_shards, reason_of
from semhitok.training.checkpoint import DamagedError, Shards


def fill(saved: Any, own: Any, source: Path) -> Any:
    """The stored state with tensors placed as the task's own are; sharded ones are read here. A collective if there are any.

    Whole and sharded go together in any way: a run may go on with another number of ranks, divided or not.

    Args:
        saved: a task's state as ``checkpoint.load`` returns it.
        own: the present state of the task, of which only shapes and places matter.
        source: the checkpoint, for messages.

    Raises:
        ValueError: a tensor has another shape in the task, or is not there: the checkpoint is that of another recipe.
        DamagedError: files cannot be read.
    """
    wanted: dict[Shards, Tensor] = {}
    filled = _matched(saved, own, "", source, wanted)
    if wanted:
        (folder,) = {each.folder for each in wanted}
        try:
            read_shards(folder, {each.name: tensor for each, tensor in wanted.items()})
        except Exception as error:
            raise DamagedError(f"{folder} cannot be read: {reason_of(error)}") from error
    return filled


def _matched(saved: Any, own: Any, name: str, source: Path, wanted: dict[Shards, Tensor]) -> Any:
    if isinstance(saved, Mapping):
        others = own if isinstance(own, Mapping) else {}
        return {key: _matched(item, others.get(key), f"{name}/{key}", source, wanted) for key, item in saved.items()}
    if isinstance(saved, list | tuple):
        others = own if isinstance(own, list | tuple) and len(own) == len(saved) else [None] * len(saved)
        pairs = enumerate(zip(saved, others, strict=True))
        found = [_matched(item, other, f"{name}/{index}", source, wanted) for index, (item, other) in pairs]
        return found if isinstance(saved, list) else tuple(found)
    if isinstance(saved, Shards):
        if not isinstance(own, Tensor):
            raise ValueError(
                f"{source} is a checkpoint of another recipe: it holds {name}, which this run does not train"
            )
        _check_shape(saved.shape, own, name, source)
        wanted[saved] = torch.empty_like(own)
        return wanted[saved]
    if isinstance(saved, Tensor) and isinstance(own, Tensor):
        _check_shape(tuple(saved.shape), own, name, source)
        return placed_like(saved, own)
    return saved


def _check_shape(shape: tuple[int, ...], own: Tensor, name: str, source: Path) -> None:
    # Pools of collected vectors grow; everything else has the shape that the recipe gives it.
    if shape != tuple(own.shape) and "/reservoir/" not in name:
        raise ValueError(
            f"{source} is a checkpoint of another recipe: {name} has shape {shape} there and {tuple(own.shape)} in this run"
        )
