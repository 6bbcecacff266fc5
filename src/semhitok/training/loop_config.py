"""Length of a run and intervals of the training loop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoopConfig:
    """Settings of the training loop.

    Attributes:
        steps: optimizer steps.
        batch_size: images per optimizer step, over all ranks and micro-batches.
        accumulation: micro-batches per optimizer step; more of them need less memory.
        log_every: steps between log entries.
        preview_every: steps between previews.
        first_preview_seconds: time until the first preview, if ``preview_every`` takes longer.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: how many of the newest checkpoints are kept.
        evaluate_every: steps between evaluations; None evaluates only at the end.
        seed: seeds all randomness except the order of the data, which the feed determines.
        max_seconds: time limit of one process. The number of steps, at most ``steps``, is chosen from the measured
            speed so that the run ends in time, and corrected along the way. A run that would still exceed the limit
            stops cleanly with a checkpoint. The evaluation after the last step is not included: leave time for it.
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

    def check_ranks(self, ranks: int) -> None:
        """Check that the batch can be split over so many ranks.

        Raises:
            ValueError: it cannot.
        """
        if self.batch_size % (self.accumulation * ranks):
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by accumulation x ranks = {self.accumulation} x {ranks}"
            )
