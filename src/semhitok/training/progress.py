"""Progress of a run on the console: a progress bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

SHOWN = ("loss", "psnr", "usage", "images_per_second")


class TrainingProgress:
    """Progress of a run on the console.

    Args:
        step: steps already done.
        total_steps: steps of the whole run.
        enabled: False prints nothing, as on all ranks but the main one.
    """

    def __init__(self, step: int, total_steps: int, *, enabled: bool = True):
        self._enabled = enabled
        self._console = Console(soft_wrap=True, highlight=False)
        self._bar: Progress | None = None
        self._total_steps = total_steps
        if enabled and self._console.is_terminal:
            columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=self._console, refresh_per_second=4)
            self._task = self._bar.add_task("measuring speed", total=total_steps, completed=step)
            self._bar.start()

    def advance(self, step: int, total_steps: int) -> None:
        """Move the bar."""
        self._total_steps = total_steps
        if self._bar is not None:
            self._bar.update(self._task, completed=step, total=total_steps)

    def report(self, step: int, values: Mapping[str, float], *, seconds_left: float) -> None:
        """Show the latest means (loss, PSNR and usage if the task reports them), images/s and time left."""
        parts = [_format(name, values[name]) for name in SHOWN if name in values]
        text = "  ".join([*parts, f"{_clock(seconds_left)} left"])
        if self._bar is not None:
            self._bar.update(self._task, description=text)
        else:
            self.say(f"step {step}/{self._total_steps}  {text}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._enabled:
            self._console.print(text, markup=False)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()


def _format(name: str, value: float) -> str:
    match name:
        case "psnr":
            return f"PSNR {value:.2f} dB"
        case "usage":
            return f"usage {100 * value:.1f} %"
        case "images_per_second":
            return f"{value:.1f} images/s"
    return f"{name} {value:.4f}"


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
