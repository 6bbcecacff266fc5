"""What the commands share that run a table of experiments: ``ablate`` and ``compare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semhitok.cli.arguments import Count, Device, OptionalPath

if TYPE_CHECKING:
    from semhitok.experiments import ExperimentContext

INTERRUPTED = 143
"""Exit code after a signal; the same command goes on."""


@dataclass(frozen=True)
class TableOptions:
    """On what experiments are run and measured."""

    test: OptionalPath = None
    """Images to measure on: scenes of the heldout split (`semhitok data scenes`)."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of the weights, the codebooks and the order of the images."""
    test_images: Count = 600
    """Number of test images to measure, evenly spaced."""
    device: Device = None
    """Device to run on: cpu, cuda, or the number of a GPU, such as 1 (the same as cuda:1)."""

    def context(self, train: Path, test: Path, out: Path) -> ExperimentContext:
        """The context of the experiments, which prints its lines at once."""
        from semhitok.distributed import choose_device
        from semhitok.experiments import open_context

        def report(line: str) -> None:
            print(line, flush=True)

        return open_context(train, test, out, choose_device(self.device), self.test_images, report)
