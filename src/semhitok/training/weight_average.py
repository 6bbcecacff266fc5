"""Exponential moving average of weights, which is exported while the raw weights are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage:
    """Averaged copy of a module.

    Parameters are averaged; buffers (EMA codebooks, running statistics) are copied, as they are averages already. The
    decay of the n-th update is min(decay, (1 + n) / (10 + n)), so that the initial weights are quickly forgotten.

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
        self._averaged = AveragedModel(module, multi_avg_fn=self._average)
        self._averaged.requires_grad_(False)

    @property
    def module(self) -> nn.Module:
        """The averaged copy; set its mode (``eval``) as needed."""
        return self._averaged.module

    def update(self, module: nn.Module) -> None:
        """Update the average with the weights of ``module`` after an optimizer step."""
        self._updates += 1
        self._averaged.update_parameters(module)

    def state_dict(self) -> dict[str, Any]:
        """Averaged weights and the number of updates."""
        return {"updates": self._updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; strict."""
        self._updates = int(state["updates"])
        self._averaged.n_averaged.fill_(self._updates)
        self.module.load_state_dict(state["module"])

    def _average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], _: Tensor | int) -> None:
        # AveragedModel's own count is a tensor, and reading it would synchronise with the GPU.
        decay = min(self.decay, (1 + self._updates) / (10 + self._updates))
        get_ema_multi_avg_fn(decay)(list(averaged), list(current), self._updates)
