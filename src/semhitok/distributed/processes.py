"""The process group that torchrun announces and this process's rank in it; a single process needs neither."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from semhitok.distributed.devices import choose_device


def init_distributed(device: str | None = None, *, timeout: float | None = None) -> torch.device:
    """Join the process group that torchrun announces in the environment, if any, and choose this rank's device.

    Args:
        device: see ``choose_device``. Under torchrun each rank takes the GPU of its local rank. CPU ranks communicate through
            gloo, GPU ranks through NCCL.
        timeout: seconds after which a collective that some rank has not reached ends with an error; by default PyTorch's, 600 for
            NCCL and 1800 for gloo.

    Raises:
        ValueError: no such device on this machine, one GPU for several ranks, or the timeout is not above 0.
    """
    if timeout is not None and not timeout > 0:
        raise ValueError(f"the collective timeout must be above 0 seconds, got {timeout}")
    limit = None if timeout is None else timedelta(seconds=timeout)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = choose_device(device)
    if chosen.index is not None and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"device {device} is one GPU, but torchrun started {os.environ['LOCAL_WORLD_SIZE']} ranks on this machine: use "
            f"device {chosen.type}, of which each rank takes its own"
        )
    if chosen.type == "cuda":
        chosen = choose_device(f"cuda:{local_rank if chosen.index is None else chosen.index}")
        torch.cuda.set_device(chosen)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if chosen.type == "cuda":
            dist.init_process_group("nccl", device_id=chosen, timeout=limit)
        else:
            dist.init_process_group("gloo", timeout=limit)
    return chosen


def destroy_distributed() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Rank of this process; 0 in a single process."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is rank 0, which writes files and shows the progress bar."""
    return rank() == 0


def collective_device() -> torch.device:
    """Device that tensors must be on for collectives: the current GPU under NCCL, else the CPU."""
    if dist.is_initialized() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def is_distributed() -> bool:
    """Whether a process group of more than one rank is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
