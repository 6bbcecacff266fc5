"""The time budget of a run: its speed, and how many steps fit into its time limit."""

from __future__ import annotations

from collections import deque

WARMUP_STEPS = 5  # not measured: compilation, memory allocation, first reads of data
MEASURED_STEPS = 20
# Fractions of the time limit at which the plan is corrected; denser at the end, since even 1 % too many steps do not finish.
REVIEWS = (0.25, 0.5, 0.75, 0.85, 0.92, 0.96)
MARGIN = 0.95  # the fraction of the time limit planned for steps; the rest is for start and end


class TimeBudget:
    """Measures the steps of one process of a run against its time limit.

    Args:
        max_seconds: time limit of the process; None for no limit. If the first steps take more than a fiftieth of it,
            only the very first step is excluded from the measurement.
    """

    def __init__(self, max_seconds: float | None):
        self.max_seconds = max_seconds
        self.elapsed = 0.0
        self._steps = 0
        self._elapsed_at_warm = 0.0
        self._busy = 0.0
        self._last = 0.0
        self._recent: deque[float] = deque(maxlen=50)
        self._reviews = list(REVIEWS)

    def add(self, step_seconds: float, elapsed: float) -> None:
        """Record a step: its duration, and the time since the process began to train."""
        self.elapsed = elapsed
        self._last = step_seconds
        self._steps += 1
        slow = self.max_seconds is not None and elapsed > 0.02 * self.max_seconds
        if self._steps > (1 if slow else WARMUP_STEPS):
            self._recent.append(step_seconds)
            self._busy += step_seconds
        else:
            self._elapsed_at_warm = elapsed

    @property
    def seconds_per_step(self) -> float:
        """Mean duration of recent steps; the duration of the last step until one has been measured."""
        return sum(self._recent) / len(self._recent) if self._recent else self._last

    @property
    def measured(self) -> bool:
        """Whether enough steps were measured: MEASURED_STEPS, or fewer if they took a twentieth of the time limit."""
        long = self.max_seconds is not None and self.elapsed > 0.05 * self.max_seconds
        return len(self._recent) >= (1 if long else MEASURED_STEPS)

    @property
    def overdue(self) -> bool:
        """Whether the time limit has been reached."""
        return self.max_seconds is not None and self.elapsed >= self.max_seconds

    @property
    def review_due(self) -> bool:
        """True once after each fraction of the time limit in ``REVIEWS``, and never after the limit itself."""
        if self.max_seconds is None or not self._reviews or self.overdue:
            return False
        if self.elapsed < self._reviews[0] * self.max_seconds:
            return False
        self._reviews = [share for share in self._reviews if share * self.max_seconds > self.elapsed]
        return True

    def steps_that_fit(self) -> int:
        """How many more steps fit into the remaining time.

        After some steps, the estimate includes the time for previews, checkpoints and evaluations at its rate so far.
        """
        assert self.max_seconds is not None
        assert self._recent
        per_step = self.seconds_per_step
        if self._steps > 4 * MEASURED_STEPS:
            per_step *= (self.elapsed - self._elapsed_at_warm) / self._busy
        return max(0, int((MARGIN * self.max_seconds - self.elapsed) / per_step))
