"""The state in which a run begins: a new one, or that of its latest checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semhitok import distributed
from semhitok.data.feed import Feed
from semhitok.training import checkpoint
from semhitok.training.checkpoint_match import fill
from semhitok.training.loop_config import LoopConfig
from semhitok.training.state import TrainState
from semhitok.training.task import Task


def new_or_resumed(task: Task, feed: Feed, config: LoopConfig, checkpoints: Path) -> TrainState:
    """A new state, or the one of the latest checkpoint, which the task then loads. A collective.

    Raises:
        CheckpointError: a checkpoint cannot be read.
        ValueError: the checkpoint has other data, another seed or another recipe.
    """
    found = _newest_checkpoint(checkpoints)
    if found is None:
        return TrainState(total_steps=config.steps, seed=config.seed)
    path, saved = found
    state = TrainState.from_state_dict(saved["state"])
    if saved["feed"] != feed.fingerprint:
        raise ValueError(f"{path} was made with other data: a run resumes on the same images, size and order only")
    if state.seed != config.seed:
        raise ValueError(f"{path} was made with seed {state.seed}, not {config.seed}")
    if state.planned_for is None or state.planned_for != config.max_seconds:
        state.total_steps, state.planned_for = config.steps, None
    state.interrupted = False
    getattr(feed, "bad", {}).update(saved.get("bad", {}))
    try:
        task.load_state_dict(fill(saved["task"], task.state_dict(), path))
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is a checkpoint of another recipe: {reason[:300]}") from error
    return state


def _newest_checkpoint(checkpoints: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that the main rank can read, on all ranks. A collective."""
    content: dict[str, Any] = {}

    def choose() -> int:
        found = checkpoint.newest_readable(checkpoints, print)
        if found is None:
            return -1
        content.update(found[1])
        return found[0]

    step = distributed.main_decides(choose)
    if step < 0:
        return None
    path = checkpoint.folder_of(checkpoints, step)
    return path, content if distributed.is_main() else checkpoint.load(path, verify_shards=False)
