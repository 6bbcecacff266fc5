"""A GPU that is not there: tensors of a device of its own, ``simulated``, that compute on the CPU.

Whatever mixes devices fails as it would on a GPU, and every point at which the host would wait for the GPU is counted with the
line of the package that caused it. Values are real, so that control flow that depends on them runs as well, which PyTorch's
``FakeTensorMode`` cannot do. Speed, memory and streams are not simulated.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

GPU_NAME, CPU = "simulated", torch.device("cpu")
PACKAGE = "semhitok"
# Their results, or the size of these, are needed by the host before it can go on.
_WAITING = {
    *(
        "_local_scalar_dense",
        "nonzero",
        "nonzero_static",
        "masked_select",
        "unique_dim",
        "_unique2",
        "unique_consecutive",
    ),
    *("equal", "is_nonzero", "repeat_interleave", "bincount", "histc"),
}
# These accept tensors of several devices.
_ACROSS_DEVICES = {"copy_", "_to_copy", "set_", "is_same_size", "resize_"}


class _Backend:
    """What PyTorch asks the module of a device for; random numbers are those of the CPU."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None: ...

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.zeros(0, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: Any = None) -> None: ...

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _register() -> torch.device:
    """Make PyTorch know the device; for the rest of the process, as registrations cannot be undone."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(GPU_NAME, backend_module=_Backend())
    return torch.device(GPU_NAME, 0)


GPU = _register()
_waits: Counter[tuple[str, str]] = Counter()


class DeviceMixError(RuntimeError):
    """An operation has received tensors of the CPU and of the GPU."""


class SimulatedTensor(Tensor):
    """A tensor of the simulated GPU; ``held`` holds its values on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> SimulatedTensor:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=GPU,
            requires_grad=held.requires_grad,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, _waits)

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"SimulatedTensor({tuple(self.shape)}, {self.dtype})"


class SimulatedGPU(TorchDispatchMode):
    """Within it, ``device="simulated"`` creates simulated tensors, and waits are counted.

    Attributes:
        waits: number of waits by (kind, file:line) since the last ``clear``. Kinds: name of the operation, ``to host`` and
            ``to device``; copies of pageable memory to a device wait, too, unless ``non_blocking``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits = _waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self.waits)

    def count(self, step: Callable[[], Any]) -> Counter[tuple[str, str]]:
        """The waits of one call."""
        self.waits.clear()
        step()
        return Counter(self.waits)


def describe(waits: Iterable[tuple[tuple[str, str], int]]) -> str:
    """One line for each place, most frequent first."""
    ordered = sorted(waits, key=lambda item: (-item[1], item[0]))
    return "\n".join(f"{number:4d}  {kind:20s} {place}" for (kind, place), number in ordered)


def _empty_strided(size: Any, stride: Any, **options: Any) -> Tensor:
    """``torch.tensor(values, device=...)`` and ``new_tensor`` create their result below the dispatch mode."""
    return SimulatedTensor(torch.empty_strided(size, stride, dtype=options.get("dtype")))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    if not non_blocking:
        _waits["to device", _place()] += 1
    assert isinstance(target, SimulatedTensor)
    target.held.copy_(source)
    return target


_library = torch.library.Library("aten", "IMPL")
_library.impl("_copy_from", _copy_from, "PrivateUse1")
_library.impl("empty_strided", _empty_strided, "PrivateUse1")


def _run(func: Any, args: Any, kwargs: dict[str, Any], waits: Counter[tuple[str, str]]) -> Any:
    name = func.overloadpacket.__name__
    if name == "_fused_sdp_choice":  # the explicit kernel, since those of a GPU cannot run here
        return 0
    given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    on_gpu = [each for each in given if isinstance(each, SimulatedTensor)]
    source_is_gpu, asked = bool(on_gpu), kwargs.get("device")
    if name in ("pin_memory", "_pin_memory"):
        return args[0]
    if name not in _ACROSS_DEVICES and source_is_gpu:
        strangers = [each for each in given if not isinstance(each, SimulatedTensor) and each.ndim]
        if strangers and name not in ("index", "index_put_", "index_put", "_index_put_impl_"):
            raise DeviceMixError(
                f"{func} got tensors of the GPU and of the CPU, the latter of shape {strangers[0].shape}"
            )
    kind = _wait(name, args, kwargs, given, on_gpu)
    if kind is not None:
        waits[kind, _place()] += 1
    inner_args, inner_kwargs = tree_map_only(SimulatedTensor, lambda each: each.held, (args, kwargs))
    if asked is not None:
        inner_kwargs["device"] = CPU
    result = func(*inner_args, **inner_kwargs)
    to_gpu_now = (torch.device(asked).type == GPU_NAME) if asked is not None else source_is_gpu
    if name == "copy_":
        return args[0]
    if name == "_local_scalar_dense" or not to_gpu_now:
        return result
    if name == "_to_copy" and result is inner_args[0]:
        result = result.clone()
    wrapped = tree_map_only(
        Tensor, lambda each: each if isinstance(each, SimulatedTensor) else SimulatedTensor(each), result
    )
    if not source_is_gpu:
        return wrapped
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _wait(
    name: str, args: Any, kwargs: dict[str, Any], given: list[Tensor], on_gpu: list[SimulatedTensor]
) -> str | None:
    """The kind of wait that the operation causes, if any."""
    if name == "_to_copy" and kwargs.get("device") is not None:
        target_is_gpu = torch.device(kwargs["device"]).type == GPU_NAME
        if target_is_gpu == bool(on_gpu):
            return None
        if target_is_gpu:
            return None if kwargs.get("non_blocking") else "to device"
        return "to host"
    if name == "copy_" and len(given) == 2 and len(on_gpu) == 1:
        non_blocking = kwargs.get("non_blocking", len(args) > 2 and args[2])
        into_gpu = isinstance(args[0], SimulatedTensor)
        return None if into_gpu and (non_blocking or not args[1].ndim) else "to device" if into_gpu else "to host"
    if not on_gpu:
        return None
    if name in ("index", "index_put_", "index_put", "_index_put_impl_"):
        indices = [each for each in args[1] if isinstance(each, Tensor)]
        if any(each.dtype in (torch.bool, torch.uint8) for each in indices):
            return "index by mask"
        return "index from host" if any(not isinstance(each, SimulatedTensor) for each in indices) else None
    return name if name in _WAITING else None


def _place() -> str:
    """The innermost line of the package on the stack."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if f"/{PACKAGE}/" in file:
            return f"{file.rsplit(f'/{PACKAGE}/', 1)[1]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"
