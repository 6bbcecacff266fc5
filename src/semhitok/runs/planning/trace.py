"""FLOPs and memory of a computation that is carried out on shapes alone (torch's FakeTensorMode)."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

Module = TypeVar("Module", bound=nn.Module)


class AllocatedBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that exist, real ones and those without data.

    Args:
        existing: tensors that were there before.

    Attributes:
        now: bytes at this time; a storage that several tensors share counts once.
        peak: the most bytes at any time.
    """

    def __init__(self, existing: list[Tensor] | None = None) -> None:
        super().__init__()
        self._storages = WeakIdKeyDictionary()
        self.now = 0
        for tensor in existing or []:
            self._add(tensor)
        self.peak = self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in tree_leaves(found):
            if isinstance(each, Tensor):
                self._add(each)
        self.peak = max(self.peak, self.now)
        return found

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._storages:
            self._storages[storage] = True
            self.now += storage.nbytes()
            weakref.finalize(storage, self._remove, storage.nbytes())

    def _remove(self, size: int) -> None:
        self.now -= size


@contextmanager
def shapes_only() -> Iterator[None]:
    """Tensors that are created within have a shape and no data."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def without_weights(build: Callable[[], Module]) -> Module:
    """A module whose parameters have no data, for use within ``shapes_only``; takes no memory, whatever its size."""
    with unset_fake_temporarily(), torch.device("meta"):
        module = build()
    return module.to_empty(device="cpu")


def count_flops(compute: Callable[[], object]) -> int:
    """FLOPs of all matrix products and convolutions, counted by torch; an attention mask saves none of them."""
    counter = FlopCounterMode(display=False)
    # Of the kernels on CPUs, torch counts this one.
    with counter, sdpa_kernel(SDPBackend.MATH):
        compute()
    return counter.get_total_flops()


def peak_bytes(compute: Callable[[], object], existing: list[Tensor]) -> int:
    """The most bytes allocated during a computation, beyond the tensors that exist before and stay."""
    mode = AllocatedBytes(existing)
    before = mode.now
    with mode:
        compute()
    return mode.peak - before
