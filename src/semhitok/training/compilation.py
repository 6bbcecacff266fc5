"""torch.compile, applied to the repeated blocks of a model from outside."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def compile_blocks(model: nn.Module, *, backend: str | Callable = "inductor") -> int:
    """Compile the repeated blocks of a model in place and return how many.

    A block is a member of an ``nn.ModuleList`` of at least two modules of one class. Compiling blocks rather than the
    whole model is quick (all blocks of a kind share one compiled function), keeps state-dict keys unchanged, and keeps
    collectives outside the graphs. ``backend`` is passed to ``torch.compile``.
    """
    count = 0
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) > 1 and len({type(block) for block in module}) == 1:
            for block in module:
                block.compile(backend=backend)
                count += 1
    return count
