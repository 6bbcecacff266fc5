"""Metrics, progress bar, previews and evaluations of a run. Only the main rank writes and prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from semhitok import distributed
from semhitok.data.feed import Batch, Feed, StreamFeed
from semhitok.training.metrics import MetricsWriter
from semhitok.training.progress import TrainingProgress
from semhitok.training.state import TrainState
from semhitok.training.task import Task
from semhitok.visualization.comparison import save_comparison

PREVIEW_IMAGES = 8
EVALUATION = "evaluation/"

Evaluate = Callable[[Task, TrainState], Mapping[str, float]]


class RunLogger:
    """Writes ``metrics.jsonl``, ``tensorboard/`` and ``previews/`` in the directory of a run.

    Args:
        directory: directory of the run; created if missing.
        task: makes the previews and is evaluated.
        feed: its first images are shown in the previews.
        state: state of the run, read at each call.
        evaluate: None for no evaluation.
    """

    def __init__(self, directory: Path, task: Task, feed: Feed, state: TrainState, *, evaluate: Evaluate | None):
        self._directory, self._task, self._feed, self._state = directory, task, feed, state
        self._evaluate = evaluate
        self._preview: Batch | None = None
        self.drawn_at: int | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._writer = MetricsWriter(directory, step=state.step) if distributed.is_main() else None
        self._progress = TrainingProgress(state.step, state.total_steps, enabled=distributed.is_main())

    def say(self, text: str) -> None:
        """Print a line."""
        self._progress.say(text)

    def advance(self) -> None:
        """Move the progress bar to the current step."""
        self._progress.advance(self._state.step, self._state.total_steps)

    def log(self, means: Mapping[str, float], *, images_per_second: float, seconds_left: float) -> None:
        """Log the means over all ranks since the last entry."""
        if self._writer is None:
            return
        values = {**means, "images_per_second": images_per_second, "seconds": self._state.seconds}
        if isinstance(self._feed, StreamFeed):
            values["bad_images"] = len(self._feed.bad)
        self._writer.write(self._state.step, values)
        self._progress.report(self._state.step, values, seconds_left=seconds_left)

    def draw(self) -> None:
        """Save a preview of the current step, if the task provides one. Every rank must call it; the others wait."""
        if self.drawn_at == self._state.step:
            return
        self.drawn_at = self._state.step
        if self._writer is not None:
            self._draw()
        distributed.wait_for_main()

    def _draw(self) -> None:
        if self._preview is None:
            self._preview = next(self._feed.batches(0, min(PREVIEW_IMAGES, len(self._feed))))
        pair = self._task.preview(self._preview)
        if pair is not None:
            save_comparison(self._directory / "previews" / f"step_{self._state.step:08d}.png", *pair)

    def evaluate(self) -> None:
        """Evaluate at the current step, unless this evaluation is already logged. Every rank must call it; the others wait."""
        if self._writer is not None:
            self._measure(self._writer)
        distributed.wait_for_main()

    def _measure(self, writer: MetricsWriter) -> None:
        if self._evaluate is None or writer.has_entry(self._state.step, EVALUATION):
            return
        figures = self._evaluate(self._task, self._state)
        writer.write(self._state.step, {EVALUATION + name: value for name, value in figures.items()})
        self.say("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))

    def end(self) -> None:
        """Print where the run stands and which images could not be read."""
        state = self._state
        if isinstance(self._feed, StreamFeed) and self._feed.bad:
            key, reason = next(iter(self._feed.bad.items()))
            self.say(f"{len(self._feed.bad)} images could not be read and were replaced, among them {key}: {reason}")
        done = f"stopped at step {state.step} of {state.total_steps}" if state.interrupted else f"{state.step} steps"
        self.say(f"{done}: {self._directory}")

    def close(self) -> None:
        """Close the log files and remove the progress bar."""
        self._progress.close()
        if self._writer is not None:
            self._writer.close()
