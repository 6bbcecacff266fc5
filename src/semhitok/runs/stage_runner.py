"""Run the stages of a recipe, each one run of the training loop: resumed where it was left, skipped when it is finished.

What a system's stages are, what they start from and how they are built is said by its ``System``; everything else is here.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
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
from semhitok.training.task import Task

StageName = Any  # one of the literals that a system names its stages by


@dataclass(frozen=True)
class RunOptions:
    """What every run is given besides its recipe and its data.

    Attributes:
        directory: of the run; with the directory of an earlier run, training continues where that stopped.
        device: to train on.
        data_name: recorded in the model's provenance.
        start_from: checkpoint that the first unfinished stage starts from, in place of the model of an earlier stage.
        max_seconds: time limit of the whole run, shared among its unfinished stages; None for none.
        compile_blocks: compile the transformer blocks (``torch.compile``), which pays off on GPUs.
        report: takes lines for the user.
    """

    directory: Path
    device: torch.device
    data_name: str
    start_from: Path | None = None
    max_seconds: float | None = None
    compile_blocks: bool = False
    report: Report = print


@dataclass(frozen=True)
class PreparedStage:
    """A stage that is ready to be trained.

    Attributes:
        model: that is trained; its configuration records finished stages and provenance.
        task, feed, evaluate: see ``training.loop.train``.
        batch: what a batch is, in words.
        blocks: the module whose repeated blocks can be compiled.
        provenance: facts recorded besides recipe, data, date, steps and samples.
        notes: lines for the user about what happened to the data, asked for after training.
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
    """What is particular to the stages of one system.

    Attributes:
        recipe: with ``name``, ``stage(name).loop`` and ``with_loop(name, **changes)``.
        options: see ``RunOptions``.
        samples: what the feed counts, as the provenance names it.
    """

    recipe: Any
    options: RunOptions
    samples: str

    def folder(self, stage: StageName) -> Path:
        """Directory of a stage's run of the training loop."""
        ...

    def earlier(self, stage: StageName) -> Sequence[StageName]:
        """The stages whose model this one may start from, the best first; empty if it starts from the recipe's parts."""
        ...

    def cost(self, stage: StageName) -> float:
        """How long a stage takes relative to the others."""
        ...

    def prepare(self, stage: StageName, start_from: Path | None) -> PreparedStage:
        """Model, task and data of a stage; ``start_from`` is a checkpoint, or None for the recipe's parts."""
        ...


class StageRunner:
    """Runs stages of a system in its run's directory."""

    def __init__(self, system: System) -> None:
        self.system, self.options = system, system.options

    def run(self, stages: Sequence[StageName]) -> TrainState:
        """Train the unfinished stages in order, each from the model of an earlier one; stop at one that is interrupted.

        Returns:
            The state of the last stage that was trained; ``interrupted`` if a signal or the time limit stopped it.

        Raises:
            ValueError: a stage has nothing to start from, or a run in the directory does not fit.
            LockedError: another run is at work in the directory.
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
        unfinished = [stage for stage in stages if not self._is_finished(stage)]
        if self.options.max_seconds is not None:
            costs = {stage: self.system.cost(stage) for stage in unfinished}
            self.system.recipe = with_time_limit(self.system.recipe, costs, self.options.max_seconds)
        state, start_from = TrainState(total_steps=0), self.options.start_from
        for stage in stages:
            if stage not in unfinished:
                self.options.report(f"{self._title(stage)} is done")
                continue
            state = self._train(stage, start_from or self._model_before(stage))
            start_from = None
            if not state.finished:
                break
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
        if stage in before:  # what is exported after an interruption must not pass for a finished stage
            config.stages = [done for done in before if done != stage]

        def record(state: TrainState) -> None:
            facts = {"recipe": recipe.name, "data": options.data_name, "date": date.today().isoformat()}
            facts |= {**prepared.provenance, "steps": state.step, self.system.samples: state.samples}
            config.stages = [*before, stage]
            config.provenance = {**getattr(config, "provenance", {}), stage: facts}

        if options.compile_blocks:  # after the task was built: its weight average copies the model as it is
            options.report(f"{compilation.compile_blocks(prepared.blocks)} blocks are compiled when they first run")
        loop = recipe.stage(stage).loop
        options.report(f"{self._title(stage)}: {loop.steps} steps of {prepared.batch}")
        state = train(
            prepared.task, prepared.feed, loop, folder, evaluate=prepared.evaluate, on_finish=record, begun=begun
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
                f"stage {stage} starts from a finished stage {' or '.join(earlier)}, and {self.options.directory} has "
                "none: train it first"
            )
        return None

    def _is_finished(self, stage: StageName) -> bool:
        return bool(distributed.main_decides(lambda: stage_is_finished(self.system.folder(stage), stage)))

    def _title(self, stage: StageName) -> str:
        folder = self.system.folder(stage)
        return str(folder) if folder == self.options.directory else f"stage {stage}"


def with_time_limit(recipe: Any, costs: Mapping[StageName, float], seconds: float) -> Any:
    """The recipe with a time limit on each of the stages: ``seconds``, shared in proportion to their costs."""
    total = sum(costs.values())
    for stage, cost in costs.items():
        recipe = recipe.with_loop(stage, max_seconds=seconds * cost / total)
    return recipe
