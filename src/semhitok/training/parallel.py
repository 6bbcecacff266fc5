"""Data parallelism from outside the model: ranks, averaged gradients, compiled blocks. One process works, too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from semhitok.quantizers.gather import gather_in_sample_order, is_distributed

BUCKET_ELEMENTS = 32 * 1024 * 1024  # bounds the extra memory of a coalesced all-reduce: 128 MiB in fp32


def join_ranks(device: str | None = None) -> torch.device:
    """Join the process group that torchrun announces in the environment, if any, and choose this rank's device.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1`` ...; None takes a GPU where there is one. Under torchrun each rank takes
            the GPU of its local rank. CPU ranks talk through gloo, GPU ranks through nccl.

    Raises:
        ValueError: no such device on this machine.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cuda":
        index = local_rank if chosen.index is None else chosen.index
        if index >= torch.cuda.device_count():
            raise ValueError(
                f"device cuda:{index} was asked for, but {torch.cuda.device_count()} GPUs were found: use device cpu"
            )
        chosen = torch.device("cuda", index)
        torch.cuda.set_device(chosen)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if chosen.type == "cuda":
            dist.init_process_group("nccl", device_id=chosen)
        else:
            dist.init_process_group("gloo")
    return chosen


def leave_ranks() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, 0 for a single one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and draws the progress bar."""
    return rank() == 0


def collective_device() -> torch.device:
    """Where tensors must lie to be communicated: the current GPU under nccl, else the CPU."""
    if dist.is_initialized() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the ranks, in few large all-reduces.

    Call it once per optimizer step, after the last backward pass. The same parameters must have a gradient on every
    rank; parameters without one are skipped.
    """
    if not is_distributed():
        return
    for bucket in _buckets(parameter.grad for parameter in parameters if parameter.grad is not None):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(flat)
        flat /= world_size()
        for gradient, part in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


def gather_with_gradients(local: Tensor) -> Tensor:
    """The global batch (world*b, ...) in sample order from every rank's (b, ...), for a loss over all of it.

    For losses that every rank computes alike from what was gathered; gradients averaged over the ranks are then those of
    a single process. A collective.
    """
    return _Gather.apply(local) if is_distributed() else local  # pyright: ignore[reportReturnType]


class _Gather(torch.autograd.Function):
    """The loss being the same on all ranks, so is its gradient: the sum over ranks is ``world`` times the own rows."""

    @staticmethod
    def forward(ctx, local: Tensor) -> Tensor:
        return gather_in_sample_order(local)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        (gathered,) = gradients
        return gathered.chunk(world_size())[rank()] * world_size()


def broadcast_parameters(module: nn.Module) -> None:
    """Give every rank the main rank's parameters and buffers."""
    if not is_distributed():
        return
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            contiguous = tensor.detach().contiguous()
            dist.broadcast(contiguous, src=0)
            tensor.copy_(contiguous)


def average_values(values: Mapping[str, float]) -> dict[str, float]:
    """Mean of each named number over the ranks; every rank must hand in the same names."""
    if not is_distributed():
        return dict(values)
    names = sorted(values)
    numbers = torch.tensor([values[name] for name in names], dtype=torch.float64, device=collective_device())
    dist.all_reduce(numbers)
    return dict(zip(names, (numbers / world_size()).tolist(), strict=True))


def any_rank(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether it is set on some rank: one small all-reduce, so that all ranks decide alike."""
    if not is_distributed():
        return flags
    raised = torch.tensor(flags, dtype=torch.int32, device=collective_device())
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return tuple(bool(flag) for flag in raised.tolist())


def from_main(number: int) -> int:
    """The main rank's number."""
    if not is_distributed():
        return number
    shared = torch.tensor(number, dtype=torch.int64, device=collective_device())
    dist.broadcast(shared, src=0)
    return int(shared.item())


def compile_blocks(model: nn.Module, *, backend: str | Callable = "inductor") -> int:
    """Compile the repeated blocks of a model in place and return how many.

    A block is a member of an ``nn.ModuleList`` of at least two modules of one class. Compiling blocks rather than the
    whole model is quick (all blocks of a kind share one compiled function), leaves the names in the state dict alone,
    and keeps collective operations outside the graphs. ``backend`` is that of ``torch.compile``.
    """
    count = 0
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) > 1 and len({type(block) for block in module}) == 1:
            for block in module:
                block.compile(backend=backend)
                count += 1
    return count


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients grouped by kind of number and device, each group cut where it exceeds BUCKET_ELEMENTS."""
    open_buckets: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for gradient in gradients:
        bucket = open_buckets.setdefault((gradient.dtype, gradient.device), [])
        bucket.append(gradient)
        if sum(member.numel() for member in bucket) >= BUCKET_ELEMENTS:
            yield open_buckets.pop((gradient.dtype, gradient.device))
    yield from open_buckets.values()
