"""The training loop: clock, data, checkpoints, logs and previews for any task.

A run lives in one directory::

    checkpoints/step_00000500/   everything needed to resume (semhitok.training.checkpoint)
    metrics.jsonl, tensorboard/  logged metrics
    previews/step_00000500.png   originals above their reconstructions
    model/                       exported by the task when the run ends or stops

A resumed run equals an uninterrupted one: data position and randomness are functions of the stored state.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NoReturn

import torch
from safetensors.torch import save_file
from torch import Tensor

from semhitok import distributed
from semhitok.data.feed import Batch, Feed
from semhitok.storage.atomic import atomic_directory
from semhitok.storage.lock import locked_directory
from semhitok.training.checkpoint_writer import CheckpointWriter
from semhitok.training.interruption import Interruption
from semhitok.training.loop_config import LoopConfig
from semhitok.training.metrics import RunningMean
from semhitok.training.resuming import new_or_resumed
from semhitok.training.run_logger import Evaluate, RunLogger
from semhitok.training.state import TrainState
from semhitok.training.task import Task, TrainingError
from semhitok.training.time_budget import TimeBudget


def train(
    task: Task,
    feed: Feed,
    config: LoopConfig,
    directory: Path,
    *,
    evaluate: Evaluate | None = None,
    on_finish: Callable[[TrainState], None] | None = None,
    begun: float | None = None,
    lock: bool = True,
) -> TrainState:
    """Train a task to its last step, or until a signal or the time limit stops it.

    Args:
        task: the task; all ranks must start from the same weights (``distributed.broadcast_parameters``).
        feed: the training data.
        config: see ``LoopConfig``.
        directory: directory of the run, on storage shared by all ranks; created if missing.
        evaluate: called on the main rank every ``evaluate_every`` steps and at the end; logged under ``evaluation/``.
        on_finish: called on every rank after the last step, before the model is exported.
        begun: value of ``time.perf_counter()`` at which the time limit starts; by default, when this is called.
        lock: keep other runs out of ``directory``; False if the caller does.

    Returns:
        The final state; ``interrupted`` if a signal or the time limit stopped the run. The main rank has then written everything.

    Raises:
        TrainingError: the loss is not finite (the batch is saved in ``nan_batch.safetensors``), memory or the disk is full, or
            at a checkpoint the ranks' states are not the same, bit for bit.
        OtherRankError: another rank ended with an error.
        LockedError: another run is using the directory.
        WriteError: a file cannot be written.
        CheckpointError: a checkpoint cannot be read.
        ValueError: the batch cannot be split over the ranks, these have different data, settings or tasks, or the checkpoint
            has other data, another seed or another recipe.
    """
    config.check_ranks(distributed.world_size())
    begun = time.perf_counter() if begun is None else begun
    with ExitStack() as stack:
        if lock:
            distributed.main_decides(lambda: stack.enter_context(locked_directory(directory)))
        return _train(task, feed, config, directory, evaluate, on_finish, begun)


def _train(
    task: Task,
    feed: Feed,
    config: LoopConfig,
    directory: Path,
    evaluate: Evaluate | None,
    on_finish: Callable[[TrainState], None] | None,
    begun: float,
) -> TrainState:
    facts = {"data": feed.fingerprint, "task": task.describe()}
    distributed.require_agreement(facts | {f"loop.{name}": value for name, value in vars(config).items()})
    state = new_or_resumed(task, feed, config, directory / "checkpoints")
    try:
        with closing(RunLogger(directory, task, feed, state, evaluate=evaluate)) as logger:
            logger.say(f"{task.describe()}; step {state.step} of {state.total_steps}")
            run = _Run(task, feed, config, directory, state, logger)
            with Interruption() as interruption:
                run.steps(interruption, begun)
                run.end(on_finish)
                # A signal during the last writes stops what would follow.
                state.interrupted |= distributed.any_rank(interruption.requested)[0]
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        parts = config.accumulation * distributed.world_size()
        raise TrainingError(
            f"out of memory in step {state.step + 1} with {config.batch_size // parts} images at a time: "
            f"raise accumulation (now {config.accumulation}) or lower batch_size (now {config.batch_size})"
        ) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise TrainingError(f"the disk of {directory} is full; the last checkpoint is untouched") from error
    return state


class _Run:
    """One process of a run."""

    def __init__(
        self, task: Task, feed: Feed, config: LoopConfig, directory: Path, state: TrainState, logger: RunLogger
    ):
        self.task, self.feed, self.config, self.directory = task, feed, config, directory
        self.state, self.logger = state, logger
        self.writer = CheckpointWriter(directory / "checkpoints", config.keep_checkpoints)
        self.means = RunningMean()
        self.budget = TimeBudget(config.max_seconds)
        # A plan restored from the checkpoint is not changed.
        self.plans = config.max_seconds is not None and state.planned_for is None
        self.saved_at = state.step if state.step else None
        self.bad_shared = len(getattr(feed, "bad", {}))

    def steps(self, interruption: Interruption, begun: float) -> None:
        """Take steps until the end, the time limit or a signal, then save; the time limit starts at ``begun``."""
        state, config = self.state, self.config
        entered, earlier_seconds = time.perf_counter(), state.seconds
        batches = self.feed.batches(state.samples, config.batch_size, distributed.rank(), distributed.world_size())
        while not state.finished and not state.interrupted:
            started = time.perf_counter()
            batch = next(batches)
            state.seed_step(distributed.rank())
            values = _numbers(self.task.step(batch.split(config.accumulation), state))
            now = time.perf_counter()
            self.budget.add(now - started, now - begun)
            broken = sorted(name for name, value in values.items() if _is_broken(name, value))
            plan = self.plans and (self.budget.measured if state.planned_for is None else self.budget.review_due)
            first_picture = self.logger.drawn_at is None and self.budget.elapsed >= config.first_preview_seconds
            some_broken, plan, stop, first_picture = distributed.any_rank(
                bool(broken), plan, interruption.requested or self.budget.overdue, first_picture
            )
            if some_broken:
                self._refuse(batch, broken)
            state.step += 1
            state.samples += config.batch_size
            state.seconds = earlier_seconds + now - entered
            self.means.add(values)
            if plan:
                self._plan()
            state.interrupted = stop and not state.finished
            self._report(first_picture)
        self._save()
        self.writer.close()

    def end(self, on_finish: Callable[[TrainState], None] | None) -> None:
        """Save the last preview, evaluate, and export the model. A collective."""
        if self.state.finished:
            self.logger.draw()
            self.logger.evaluate()
            if on_finish is not None:
                on_finish(self.state)
        if distributed.is_main():
            with atomic_directory(self.directory / "model") as folder:
                self.task.export(folder)
        else:
            self.task.export(None)
        distributed.wait_for_main()
        self.logger.end()

    def _refuse(self, batch: Batch, broken: list[str]) -> NoReturn:
        """Save the images that led to a non-finite value and stop every rank, whichever had it."""
        if not broken:
            raise distributed.OtherRankError(f"the loss of another rank is not finite in step {self.state.step + 1}")
        name = "nan_batch.safetensors" if distributed.is_main() else f"nan_batch_rank{distributed.rank()}.safetensors"
        _save_batch(batch, self.directory / name)
        kept = f"step {self.saved_at}" if self.saved_at is not None else "none yet"
        raise TrainingError(
            f"{', '.join(broken)} is not finite in step {self.state.step + 1} (its images are in {self.directory / name}; "
            f"last good checkpoint: {kept}): lower the learning rate or train in float32"
        )

    def _plan(self) -> None:
        """Fit the number of steps to the time limit; the main rank's clock decides."""
        steps = distributed.from_main(min(self.config.steps, self.state.step + self.budget.steps_that_fit()))
        if steps != self.state.total_steps:
            self.logger.say(f"{steps} steps fit into {self.config.max_seconds:g} s")
        self.state.total_steps, self.state.planned_for = steps, self.config.max_seconds

    def _report(self, first_picture: bool) -> None:
        """Do what is due after a step: logging, preview, evaluation, checkpoint."""
        state, config, logger = self.state, self.config, self.logger
        ends = state.finished or state.interrupted
        save = state.step % config.checkpoint_every == 0
        logger.advance()
        # Means are reset at every checkpoint, so that a resumed run logs what the uninterrupted one does.
        if state.step % config.log_every == 0 or save or ends:
            means = distributed.average_values(self.means.take())
            self._share_bad()
            seconds = self.budget.seconds_per_step
            left = (state.total_steps - state.step) * seconds
            logger.log(means, images_per_second=config.batch_size / seconds, seconds_left=left)
        if state.step % config.preview_every == 0 or first_picture:
            logger.draw()
        if config.evaluate_every and state.step % config.evaluate_every == 0 and not ends:
            logger.evaluate()
        if save:
            self._save()

    def _share_bad(self) -> None:
        """Let every rank know what the others could not read. A collective; checkpoints are written right after it."""
        bad: dict[str, str] = getattr(self.feed, "bad", {})
        if distributed.any_rank(len(bad) > self.bad_shared)[0]:
            for found in distributed.gather_values(dict(bad)):
                bad.update(found)
        self.bad_shared = len(bad)

    def _save(self) -> None:
        """Write a checkpoint, or begin to, unless this step already has one. A collective."""
        if self.saved_at == self.state.step:
            return
        content = {"state": self.state.state_dict(), "feed": self.feed.fingerprint, "task": self.task.state_dict()}
        if different := distributed.different_tensors(distributed.named_tensors(content["task"])):
            raise TrainingError(
                f"the ranks have drifted apart by step {self.state.step}: {len(different)} tensors are not the same on all of "
                f"them, the first is {different[0]}; no checkpoint is written, the last one is untouched"
            )
        content["bad"] = dict(getattr(self.feed, "bad", {}))  # of feeds that read while training goes on
        self.writer.save(self.state.step, content)
        self.saved_at = self.state.step


def _numbers(values: Mapping[str, float | Tensor]) -> dict[str, float]:
    """Plain numbers; tensors are read from the device in a single transfer."""
    tensors = {name: value.detach().reshape(()) for name, value in values.items() if isinstance(value, Tensor)}
    read: dict[str, float] = {}
    if tensors:
        device = next(iter(tensors.values())).device
        together = torch.stack([value.to(device, torch.float32) for value in tensors.values()])
        read = dict(zip(tensors, together.tolist(), strict=True))
    return {name: read[name] if isinstance(value, Tensor) else float(value) for name, value in values.items()}


def _is_broken(name: str, value: float) -> bool:
    must_be_finite = name == "loss" or name.startswith("loss/") or name.endswith("gradient_norm")
    return must_be_finite and not math.isfinite(value)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _save_batch(batch: Batch, path: Path) -> None:
    tensors = {"images": batch.images_BCHW, "indices": batch.indices_B, "flipped": batch.flipped_B}
    tensors |= {f"extras.{name}": value for name, value in batch.extras.items()}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
