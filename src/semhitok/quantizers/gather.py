"""The few collectives the quantizers need; each does nothing in a single process.

Rank r holds samples [r*b, (r+1)*b) of the global batch, all ranks the same number b.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether a process group of more than one rank is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


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
    """Sum of the ranks' tensors, on the device of this rank's. A collective."""
    if not is_distributed():
        return local
    # NCCL sums on the GPU only; counts that come from a checkpoint may lie on the CPU.
    total = local.to("cuda" if dist.get_backend() == "nccl" else local.device, copy=True).contiguous()
    dist.all_reduce(total)
    return total.to(local.device)


@torch.no_grad()
def copy_from_first_rank(tensor: Tensor) -> None:
    """Overwrites the tensor by rank 0's, in place. A collective."""
    if is_distributed():
        dist.broadcast(tensor, src=0)
