"""The interface between the training loop and a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from semhitok.data.feed import Batch
from semhitok.training.state import TrainState


class TrainingError(ValueError):
    """Training cannot continue; the message is one sentence for the user."""


class Task(Protocol):
    """A model in training: its parameters, optimizers, losses and averages."""

    def step(self, microbatches: Sequence[Batch], state: TrainState) -> Mapping[str, float | Tensor]:
        """Take one optimizer step.

        Args:
            microbatches: this rank's images in parts of equal size, over which gradients are averaged.
            state: ``state.step`` counts the optimizer steps taken before this one. The global random generators are
                seeded by (seed, step, rank) before the call; ``state.generator`` returns further ones.

        Returns:
            Scalars (numbers or 0-d tensors) for the log, the same names on every rank at a given step. ``loss`` is
            required; ``psnr`` and ``usage`` (in [0,1]) are shown in the progress bar. The loop stops if ``loss``,
            ``loss/...`` or ``...gradient_norm`` is not finite.
        """
        ...

    def preview(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Originals and reconstructions, float (B,3,H,W) in [-1,1], or None for a task without images to show.

        Called on the main rank only: no collective operations.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs: nested dicts, lists and tuples of tensors, numbers, text and None.

        A collective: every rank calls it, the main rank writes what it returns, and each rank its part of sharded tensors.
        Before the first step it is called, too, so that a checkpoint can be read into what it returns.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; strict."""
        ...

    def export(self, directory: Path | None) -> None:
        """Write the trained model, with averaged weights if the task keeps an average.

        A collective: every rank calls it.

        Args:
            directory: an empty folder on the main rank; None on the others, which write nothing.
        """
        ...

    def describe(self) -> str:
        """One line that says what is trained and how many parameters it has."""
        ...
