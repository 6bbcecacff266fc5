"""Exponential moving average of weights: what is exported and shown, while the raw weights are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage:
    """Averaged copy of a module.

    Parameters are averaged; buffers (EMA codebooks, running statistics) are copied, as they are averages already. The
    decay of the n-th update is min(decay, (1 + n) / (10 + n)), so that the first weights are soon forgotten.

    Args:
        module: copied at construction (before ``compile_blocks``, after loading weights). Hand in only what is trained:
            the copy holds frozen parts as well.
        decay: weight of the past, in [0, 1).
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
        """Take in the weights of ``module`` after an optimizer step."""
        self._updates += 1
        self._averaged.update_parameters(module)

    def state_dict(self) -> dict[str, Any]:
        """Averaged weights and the number of updates."""
        return {"updates": self._updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave; strict."""
        self._updates = int(state["updates"])
        self._averaged.n_averaged.fill_(self._updates)
        self.module.load_state_dict(state["module"])

    def _average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], _: Tensor | int) -> None:
        # The count is kept here as a number: AveragedModel's is a tensor, and reading it would wait for the GPU.
        decay = min(self.decay, (1 + self._updates) / (10 + self._updates))
        get_ema_multi_avg_fn(decay)(list(averaged), list(current), self._updates)
