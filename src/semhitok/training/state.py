"""Where a run stands: all that a resumed run needs besides the task's own tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) from numbers and names; the same on every machine, independent for different parts."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass
class TrainState:
    """Progress of a run.

    Randomness is a function of (seed, step): the loop seeds torch's global generators before each step and
    ``generator`` gives named ones, so that no state of a generator has to be stored.

    Attributes:
        total_steps: optimizer steps of the whole run. Under ``LoopConfig.max_seconds`` it is an upper bound until the
            speed has been measured; schedules read it anew at each step.
        seed: of the run.
        step: optimizer steps done.
        samples: images seen, over all ranks: the position in the feed.
        seconds: wall-clock time spent in training so far, over all processes that worked on the run.
        planned_for: the ``max_seconds`` for which ``total_steps`` was chosen; None if it was not chosen by time.
        interrupted: the run stopped before ``total_steps`` (signal or time limit).
    """

    total_steps: int
    seed: int = 0
    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    planned_for: float | None = None
    interrupted: bool = False

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.total_steps

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A generator for one purpose at this step, equal on every rank unless ``purpose`` names the rank."""
        return torch.Generator(device).manual_seed(derive_seed(self.seed, self.step, purpose))

    def seed_step(self, rank: int) -> None:
        """Seed torch's global generators (CPU and accelerators) for this step on this rank."""
        torch.manual_seed(derive_seed(self.seed, self.step, "global", rank))

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, values: Mapping[str, Any]) -> TrainState:
        """The state that ``state_dict`` described; strict."""
        return cls(**values)
