"""torch.compile, applied to the repeated blocks of a model from outside."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def compile_blocks(model: nn.Module, *, backend: str | Callable = "inductor") -> int:
    """Compile the repeated blocks of a model in place and return how many.

    Blocks are those of ``repeated_blocks``. Compiling blocks rather than the
    whole model is quick (all blocks of a kind share one compiled function), keeps state-dict keys unchanged, and keeps
    collectives outside the graphs. ``backend`` is passed to ``torch.compile``.
    """
    blocks = repeated_blocks(model)
    for block in blocks:
        block.compile(backend=backend)
    return len(blocks)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The members of each ``nn.ModuleList`` of at least two modules of one class."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) > 1]
    return [block for blocks in lists if len({type(each) for each in blocks}) == 1 for block in blocks]
