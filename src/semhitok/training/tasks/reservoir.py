"""Recent feature vectors of the global batch, kept to initialise and revive codes from.

Shapes: N vectors, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from semhitok import distributed
from semhitok.distributed import gather_in_sample_order


class Reservoir:
    """The rows of the last steps, about ``size`` of them; several aligned columns (vectors, their semantic ids) at once.

    Rows are gathered over the ranks in sample order as they come in, so that what is drawn from them does not depend on
    the number of ranks. Part of a task's state: a resumed run draws from the same rows.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        if size < 1:
            raise ValueError(f"a reservoir must hold at least 1 vector, got {size}")
        self.size = size
        self.device = torch.device(device)
        self._steps: list[tuple[Tensor, ...]] = []

    def __len__(self) -> int:
        return sum(len(step[0]) for step in self._steps)

    def add(self, *columns: Tensor) -> None:
        """Add this rank's rows of one optimizer step: vectors (N,D), further columns (N,). A collective."""
        self._steps.append(tuple(gather_in_sample_order(column.detach()).clone() for column in columns))
        while len(self._steps) > 1 and len(self) > self.size:
            self._steps.pop(0)

    def local(self) -> tuple[Tensor, ...]:
        """This rank's equal share of all rows, oldest first: what the quantizers' collectives take."""
        joined = (torch.cat(parts) for parts in zip(*self._steps, strict=True))
        return tuple(column.chunk(distributed.world_size())[distributed.rank()] for column in joined)

    def clear(self) -> None:
        """Forget everything."""
        self._steps = []

    def state_dict(self) -> dict[str, Any]:
        """The rows, step by step."""
        return {"steps": [list(step) for step in self._steps]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave; checkpoints are read to the CPU, the rows go back to the device."""
        self._steps = [tuple(column.to(self.device) for column in step) for step in state["steps"]]
