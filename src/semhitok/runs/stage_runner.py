"""Runs the stages of a recipe, each a run of the training loop that is resumed if interrupted and skipped if finished.

A ``System`` defines the stages, what they start from and how they are built; everything else is here.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from semhitok import distributed
from semhitok.data.feed import Feed
from semhitok.runs.preparation import Report
from semhitok.storage.atomic import write_text
from semhitok.storage.lock import locked_directory
from semhitok.tokenizers.checkpoints import stage_is_finished
from semhitok.training import compilation
from semhitok.training.loop import train
from semhitok.training.run_logger import Evaluate
from semhitok.training.state import TrainState
from semhitok.training.task import Task, TrainingError
from semhitok.types import ShardKind

StageName = Any  # one of the literals that name a system's stages


@dataclass(frozen=True)
class RunOptions:
    """Options of a run besides its recipe and data.

    Attributes:
        directory: directory of the run; training resumes if it holds an earlier run.
        device: device to train on.
        data_name: name of the data, recorded in the model's provenance.
        start_from: checkpoint that the first unfinished stage starts from, instead of the model of an earlier stage.
        max_seconds: time limit of the whole run, shared among its unfinished stages; None for no limit.
        compile_blocks: compile the transformer blocks (``torch.compile``), which pays off on GPUs.
        shard: how a language model is divided among ranks (``distributed.sharding``); tokenizers are not.
        dry_run: prepare the first unfinished stage and take one step, without writing checkpoints or a model.
        report: called with lines for the user.
    """

    directory: Path
    device: torch.device
    data_name: str
    start_from: Path | None = None
    max_seconds: float | None = None
    compile_blocks: bool = False
    shard: ShardKind = "none"
    dry_run: bool = False
    report: Report = print


@dataclass(frozen=True)
class PreparedStage:
    """A stage that is ready for training.

    Attributes:
        model: the model in training; its configuration records finished stages and provenance.
        task, feed, evaluate: see ``training.loop.train``.
        batch: description of a batch, for the user.
        blocks: the module whose repeated blocks can be compiled.
        provenance: facts to record in addition to recipe, data, date, steps and samples.
        notes: returns lines for the user about the data; called after training.
    """

    model: PreTrainedModel
    task: Task
    feed: Feed
    batch: str
    blocks: nn.Module
    evaluate: Evaluate | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: Callable[[], Sequence[str]] = tuple


class System(Protocol):
    """The stages of one system.

    Attributes:
        recipe: has ``name``, ``stage(name).loop`` and ``with_loop(name, **changes)``.
        options: see ``RunOptions``.
        samples: unit of the feed's count, as named in the provenance.
    """

    recipe: Any
    options: RunOptions
    samples: str

    def folder(self, stage: StageName) -> Path:
        """Directory of a stage's run of the training loop."""
        ...

    def earlier(self, stage: StageName) -> Sequence[StageName]:
        """The stages whose model this one can start from, in order of preference; empty for the recipe's own parts."""
        ...

    def cost(self, stage: StageName) -> float:
        """Cost of a stage relative to the others."""
        ...

    def prepare(self, stage: StageName, start_from: Path | None) -> PreparedStage:
        """Model, task and data of a stage; ``start_from`` is a checkpoint, or None for the recipe's own parts."""
        ...


class StageRunner:
    """Runs the stages of a system in the directory of the run."""

    def __init__(self, system: System) -> None:
        self.system, self.options = system, system.options

    def run(self, stages: Sequence[StageName]) -> TrainState:
        """Train the unfinished stages in order, each from the model of an earlier one, until one is interrupted.

        Returns:
            The state of the last stage that was trained; ``interrupted`` if a signal or the time limit stopped it.

        Raises:
            ValueError: a stage has no model to start from, or the directory holds a run that does not match.
            LockedError: another run is using the directory.
        """
        with ExitStack() as stack:
            distributed.main_decides(lambda: self._lock(stack))
            return self._run(stages)

    def _lock(self, stack: ExitStack) -> bool:
        locked = stack.enter_context(locked_directory(self.options.directory))
        if not locked:
            self.options.report(f"{self.options.directory} cannot be locked: start no second run in it")
        return locked

    def _run(self, stages: Sequence[StageName]) -> TrainState:
        self._check_agreement(stages)
        unfinished = [stage for stage in stages if not self._is_finished(stage)]
        for stage in unfinished:
            self.system.recipe.stage(stage).loop.check_ranks(distributed.world_size())
        if self.options.max_seconds is not None:
            costs = {stage: self.system.cost(stage) for stage in unfinished}
            self.system.recipe = with_time_limit(self.system.recipe, costs, self.options.max_seconds)
        state, start_from = TrainState(total_steps=0), self.options.start_from
        for stage in stages:
            if stage not in unfinished:
                self.options.report(f"{self._title(stage)} is done")
                continue
            begins_with = start_from or self._model_before(stage)
            if self.options.dry_run:
                return self._try(stage, begins_with)
            state = self._train(stage, begins_with)
            start_from = None
            if not state.finished or state.interrupted:
                break
        return state

    def _check_agreement(self, stages: Sequence[StageName]) -> None:
        """Find out before anything is prepared that ranks were started differently."""
        options, recipe = self.options, self.system.recipe
        facts: dict[str, object] = {"recipe": recipe.name, "stages": ", ".join(stages), "data": options.data_name}
        facts |= {name: getattr(options, name) for name in ("start_from", "max_seconds", "compile_blocks", "shard")}
        distributed.require_agreement(facts | dict(_fields(dataclasses.asdict(recipe))))

    def _try(self, stage: StageName, start_from: Path | None) -> TrainState:
        """Everything that a stage needs, and one step of it."""
        loop = self.system.recipe.stage(stage).loop
        prepared = self.system.prepare(stage, start_from)
        if self.options.compile_blocks:
            compilation.compile_blocks(prepared.blocks)
        state = TrainState(total_steps=loop.steps, seed=loop.seed)
        batches = prepared.feed.batches(0, loop.batch_size, distributed.rank(), distributed.world_size())
        begun = time.perf_counter()
        batch = next(batches)
        state.seed_step(distributed.rank())
        values = prepared.task.step(batch.split(loop.accumulation), state)
        loss = distributed.average_values({"loss": float(values["loss"])})["loss"]
        if not math.isfinite(loss):
            raise TrainingError(f"the loss of the first step of {self._title(stage)} is {loss}")
        seconds = time.perf_counter() - begun
        memory = ""
        if self.options.device.type == "cuda":
            memory = f", {torch.cuda.max_memory_allocated(self.options.device) / 2**30:.1f} GiB of memory"
        self.options.report(
            f"{self._title(stage)} can run: {prepared.task.describe()}; the first step of {prepared.batch} took {seconds:.1f} s"
            f"{memory}, loss {loss:.4f}; no checkpoint and no model were written"
        )
        return state

    def _train(self, stage: StageName, start_from: Path | None) -> TrainState:
        begun = time.perf_counter()  # the time limit includes preparation
        recipe, options, folder = self.system.recipe, self.options, self.system.folder(stage)
        if distributed.is_main():
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "recipe.json", json.dumps(dataclasses.asdict(recipe), indent=1, default=str))
        prepared = self.system.prepare(stage, start_from)
        config = prepared.model.config
        before = list(getattr(config, "stages", []))
        if stage in before:  # an export after an interruption must not count as a finished stage
            config.stages = [done for done in before if done != stage]

        def record(state: TrainState) -> None:
            facts = {"recipe": recipe.name, "data": options.data_name, "date": date.today().isoformat()}
            facts |= {**prepared.provenance, "steps": state.step, self.system.samples: state.samples}
            config.stages = [*before, stage]
            config.provenance = {**getattr(config, "provenance", {}), stage: facts}

        if options.compile_blocks:  # after building the task, whose weight average copies the uncompiled model
            options.report(f"{compilation.compile_blocks(prepared.blocks)} blocks will be compiled on first use")
        loop = recipe.stage(stage).loop
        options.report(f"{self._title(stage)}: {loop.steps} steps of {prepared.batch}")
        state = train(
            prepared.task,
            prepared.feed,
            loop,
            folder,
            evaluate=prepared.evaluate,
            on_finish=record,
            begun=begun,
            lock=False,
        )
        for note in prepared.notes():
            options.report(note)
        return state

    def _model_before(self, stage: StageName) -> Path | None:
        """The model of a finished stage that this one starts from."""
        earlier = self.system.earlier(stage)
        for found in earlier:
            if self._is_finished(found):
                return self.system.folder(found) / "model"
        if earlier:
            raise ValueError(
                f"stage {stage} starts from a finished stage {' or '.join(earlier)}, but {self.options.directory} has "
                "none: train it first"
            )
        return None

    def _is_finished(self, stage: StageName) -> bool:
        return bool(distributed.main_decides(lambda: stage_is_finished(self.system.folder(stage), stage)))

    def _title(self, stage: StageName) -> str:
        folder = self.system.folder(stage)
        return str(folder) if folder == self.options.directory else f"stage {stage}"


def _fields(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every value of a nested configuration under the name of its option."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def with_time_limit(recipe: Any, costs: Mapping[StageName, float], seconds: float) -> Any:
    """The recipe with ``seconds`` divided into time limits of the stages in proportion to their costs."""
    total = sum(costs.values())
    for stage, cost in costs.items():
        recipe = recipe.with_loop(stage, max_seconds=seconds * cost / total)
    return recipe
