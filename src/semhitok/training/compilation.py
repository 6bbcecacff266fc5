"""torch.compile, applied to the repeated blocks of a model from outside."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn


def compile_blocks(model: nn.Module, *, backend: str | Callable = "inductor") -> int:
    """Compile the repeated blocks of a model in place and return how many.

    Blocks are those of ``repeated_blocks``. Compiling blocks rather than the
    whole model is quick (all blocks of a kind share one compiled function), keeps state-dict keys unchanged, and keeps
    collectives outside the graphs. Calls with a cache of keys and values (generation) run uncompiled: each block has its own
    entry in the cache, so that each would be compiled anew, and again for other lengths. ``backend`` is passed to
    ``torch.compile``.
    """
    blocks = repeated_blocks(model)
    for block in blocks:
        block.compile(backend=backend)
        compiled = block._compiled_call_impl
        assert compiled is not None, "nn.Module.compile sets it"
        block._compiled_call_impl = partial(_call, block, compiled)
    return len(blocks)


def _call(block: nn.Module, compiled: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return (compiled if kwargs.get("past_key_values") is None else block._call_impl)(*args, **kwargs)


def has_compiled_blocks(model: nn.Module) -> bool:
    """Whether ``compile_blocks`` was called with this model."""
    return any(block._compiled_call_impl is not None for block in repeated_blocks(model))


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The members of each ``nn.ModuleList`` of at least two modules of one class."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) > 1]
    return [block for blocks in lists if len({type(each) for each in blocks}) == 1 for block in blocks]
