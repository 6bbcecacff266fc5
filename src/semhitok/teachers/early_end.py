"""The input of one layer of a transformer, without computing that layer or anything after it.

Models of transformers return all hidden states or the last one. Asking for all keeps every one of them in memory and runs the
whole model, although a teacher needs one, usually the last but one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class _ReachedError(Exception):
    """The forward pass has come to the layer; ``hidden`` is what it would get."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


class _End(nn.Module):
    """Stands in the place of the layer."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        raise _ReachedError(hidden_states)


def find_layers(model: nn.Module, count: int) -> str | None:
    """The name of the model's only ``nn.ModuleList`` of ``count`` modules; None if there is none or more than one."""
    found = [
        name for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    return found[0] if len(found) == 1 else None


def input_of_layer(model: Module, layers: str, index: int, run: Callable[[Module], object]) -> Tensor:
    """What layer ``index`` of a model receives.

    The layers before it are the model's own, with whatever is compiled or hooked in them; the model itself is not changed, so
    that several threads may use it.

    Args:
        model: the transformer.
        layers: the name of its list of layers, see ``find_layers``.
        index: which layer, from 0.
        run: calls the model that it is given, which ends where the layer would begin.

    Raises:
        ValueError: the model did not come to the layer.
    """
    try:
        run(_ending(model, layers.split("."), index))
    except _ReachedError as reached:
        return reached.hidden
    raise ValueError(f"{type(model).__name__} does not call its {layers}")


def _ending(module: Any, path: Sequence[str], index: int) -> Any:
    """A shallow copy, which shares all parameters; only the modules on the way to the layers are new."""
    if not path:
        return nn.ModuleList([*module[:index], _End()])
    changed = copy.copy(module)
    inner = _ending(module._modules[path[0]], path[1:], index)
    changed.__dict__["_modules"] = module._modules | {path[0]: inner}
    return changed
