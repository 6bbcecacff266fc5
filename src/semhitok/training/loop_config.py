"""How long a run goes on, and what happens when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoopConfig:
    """How a run goes on in time.

    Attributes:
        steps: optimizer steps.
        batch_size: images per optimizer step, over all ranks and micro-batches.
        accumulation: micro-batches per optimizer step; more of them need less memory.
        log_every: steps between entries of the log.
        preview_every: steps between pictures.
        first_preview_seconds: time after which the first picture is drawn, if ``preview_every`` does not come first.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: how many of the newest checkpoints stay.
        evaluate_every: steps between calls of the evaluation; None evaluates at the end only.
        seed: of everything random but the order of the data, which is the feed's.
        max_seconds: time limit of one process. The speed is measured over the first steps and the number of steps is
            set so that the run ends in time (never above ``steps``); it is corrected as time goes by. A run
            that would exceed the limit all the same stops cleanly, with a checkpoint. The evaluation after the last
            step is not counted: leave time for it.
    """

    steps: int
    batch_size: int
    accumulation: int = 1
    log_every: int = 20
    preview_every: int = 500
    first_preview_seconds: float = 60.0
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    evaluate_every: int | None = None
    seed: int = 0
    max_seconds: float | None = None

    def __post_init__(self):
        counts = ("steps", "batch_size", "accumulation", "log_every", "preview_every", "checkpoint_every")
        for name in (*counts, "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.evaluate_every is not None and self.evaluate_every < 1:
            raise ValueError(f"evaluate_every must be at least 1 or None, got {self.evaluate_every}")
        if self.max_seconds is not None and self.max_seconds <= 0:
            raise ValueError(f"max_seconds must be above 0, got {self.max_seconds}")
