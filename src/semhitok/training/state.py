"""Progress of a run: everything a resumed run needs besides the task's own tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) derived from numbers and names: reproducible anywhere, independent for different parts."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass
class TrainState:
    """Progress of a run.

    Randomness is a function of (seed, step): the loop seeds torch's global generators before each step, and
    ``generator`` returns named ones, so no generator state has to be stored.

    Attributes:
        total_steps: optimizer steps of the whole run. Under ``LoopConfig.max_seconds`` it is an upper bound until the
            speed has been measured; schedules read it at each step.
        seed: seed of the run.
        step: optimizer steps done.
        samples: images seen over all ranks; also the position in the feed.
        seconds: wall-clock training time so far, including that before interruptions.
        planned_for: the ``max_seconds`` that ``total_steps`` was chosen for; None without a time limit.
        interrupted: whether a signal or the time limit stopped the run; at the very end also after its last step.
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
        """All fields as plain values."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, values: Mapping[str, Any]) -> TrainState:
        """The state from which ``state_dict`` was taken; strict."""
        return cls(**values)
