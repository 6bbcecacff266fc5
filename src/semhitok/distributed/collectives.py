"""The collectives that training and quantizers need; in a single process each is a no-op.

Rank r holds samples [r*b, (r+1)*b) of the global batch, all ranks the same number b.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from semhitok.distributed.processes import collective_device, is_distributed, rank, world_size
from semhitok.distributed.waiting import wait_for_all


@torch.no_grad()
def gather_in_sample_order(local: Tensor) -> Tensor:
    """The global batch (world*b, ...) in sample order from every rank's (b, ...); the same on all ranks.

    A collective: every rank must call it, with equal shapes.
    """
    if not is_distributed():
        return local
    parts = [torch.empty_like(local, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, local.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def sum_over_ranks(local: Tensor) -> Tensor:
    """Sum of the tensor over the ranks, on the device of this rank's tensor. A collective."""
    if not is_distributed():
        return local
    # NCCL sums on the GPU only; counts from a checkpoint may be on the CPU.
    total = local.to("cuda" if dist.get_backend() == "nccl" else local.device, copy=True).contiguous()
    dist.all_reduce(total)
    return total.to(local.device)


@torch.no_grad()
def all_reduce_sum(tensor: Tensor) -> None:
    """Replace the tensor by its sum over the ranks, in place. A collective."""
    if is_distributed():
        dist.all_reduce(tensor)


@torch.no_grad()
def copy_from_first_rank(tensor: Tensor) -> None:
    """Overwrite the tensor with rank 0's, in place. A collective."""
    if is_distributed():
        dist.broadcast(tensor, src=0)


def gather_with_gradients(local: Tensor) -> Tensor:
    """The global batch (world*b, ...) in sample order from every rank's (b, ...), for losses that compare with all of it.

    A row's gradient is the sum over the losses of all ranks, so that gradients averaged over the ranks equal those of a single
    process whose loss is the mean of the ranks' losses. A collective, in the backward pass as well.
    """
    return _Gather.apply(local) if is_distributed() else local  # pyright: ignore[reportReturnType]


class _Gather(torch.autograd.Function):
    """See ``gather_with_gradients``."""

    @staticmethod
    def forward(ctx, local: Tensor) -> Tensor:
        return gather_in_sample_order(local)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        gathered = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gathered)
        return gathered.chunk(world_size())[rank()]


def broadcast_parameters(module: nn.Module) -> None:
    """Copy the main rank's parameters and buffers to every rank. A collective, which waits for late ranks."""
    if not is_distributed():
        return
    wait_for_all()  # ranks that read data from a slow disk come late
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            # A model that is about to be sharded may still be on the CPU, where NCCL does not reach it.
            on_device = tensor.detach().to(collective_device() if dist.get_backend() == "nccl" else tensor.device)
            contiguous = on_device.contiguous()
            dist.broadcast(contiguous, src=0)
            tensor.copy_(contiguous)


def average_values(values: Mapping[str, float]) -> dict[str, float]:
    """Mean of each named number over the ranks. A collective: every rank must pass the same names."""
    if not is_distributed():
        return dict(values)
    names = sorted(values)
    numbers = torch.tensor([values[name] for name in names], dtype=torch.float64, device=collective_device())
    dist.all_reduce(numbers)
    return dict(zip(names, (numbers / world_size()).tolist(), strict=True))


def any_rank(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether it is set on any rank: one small all-reduce, so that all ranks decide alike."""
    if not is_distributed():
        return flags
    raised = torch.tensor(flags, dtype=torch.int32, device=collective_device())
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return tuple(bool(flag) for flag in raised.tolist())


def gather_values(value: Any) -> list[Any]:
    """Every rank's value, in order of ranks, on every rank. A collective; for small values, which are pickled."""
    if not is_distributed():
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found
