"""Exponential moving average of weights, which is exported while the raw weights are trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Averaged copy of a module.

    Parameters are averaged; buffers (EMA codebooks, running statistics) are copied, as they are averages already. The
    decay of the n-th update is min(decay, (1 + n) / (10 + n)), so that the initial weights are quickly forgotten.

    Attributes:
        module: the averaged copy; set its mode (``eval``) as needed.

    Args:
        module: copied at construction (before ``compile_blocks``, after loading weights). Pass only the trained parts,
            since frozen ones would be copied as well.
        decay: weight of the previous average, in [0, 1).
    """

    def __init__(self, module: nn.Module, *, decay: float = 0.9995):
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of a weight average must be in [0, 1), got {decay}")
        self.decay = decay
        self._updates = 0
        self.module = deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Update the average with the weights of ``module`` after an optimizer step."""
        # torch's AveragedModel copies its count to the device in every update, for which the host waits.
        self._updates += 1
        decay = min(self.decay, (1 + self._updates) / (10 + self._updates)) if self._updates > 1 else 0.0
        if averaged := tuple(self.module.parameters()):
            get_ema_multi_avg_fn(decay)(averaged, tuple(module.parameters()), self._updates)
        for copied, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            copied.copy_(buffer)

    @contextmanager
    def applied_to(self, module: nn.Module) -> Iterator[None]:
        """Within it, ``module`` has the averaged weights; its own are restored afterwards."""
        current = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        module.load_state_dict(self.module.state_dict())
        try:
            yield
        finally:
            module.load_state_dict(current)

    def state_dict(self) -> dict[str, Any]:
        """Averaged weights and the number of updates."""
        return {"updates": self._updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; strict."""
        self._updates = int(state["updates"])
        self.module.load_state_dict(state["module"])
