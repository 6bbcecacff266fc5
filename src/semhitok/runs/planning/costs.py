"""What one stage costs, independent of GPUs: the common form of all systems."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Unit = Literal["images", "rows"]


@dataclass(frozen=True)
class Part:
    """A part of the model.

    Attributes:
        name: for the user.
        parameters: their number.
        trained: how many of them are trained.
        flops: forward and backward passes, per image or row.
    """

    name: str
    parameters: int
    trained: int
    flops: float


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU by part; gathered are parameters and gradients that sharding makes whole for a while."""

    weights: float
    gradients: float
    optimizer: float
    averages: float = 0.0
    gathered: float = 0.0
    activations: float = 0.0
    logits: float = 0.0

    @property
    def total(self) -> float:
        """All parts: the largest sum of them at any time."""
        return sum(vars(self).values())


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name, steps, batch_size, accumulation, recompute: as in the recipe.
        unit: what the batch counts.
        images: images per unit that are read.
        parts: of the model in training, with networks of its losses.
        assumptions: sentences for the user.
    """

    name: str
    steps: int
    batch_size: int
    accumulation: int
    unit: Unit
    images: float
    parts: tuple[Part, ...]
    recompute: bool = False
    assumptions: tuple[str, ...] = field(default=())

    @property
    def flops(self) -> float:
        """Forward and backward passes of one unit, without recomputation."""
        return sum(part.flops for part in self.parts)
