"""The process group that torchrun announces and this process's rank in it; a single process needs neither."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from semhitok.distributed.devices import choose_device

START_SECONDS = 600.0
"""How long ranks wait for others that torchrun has started and that have not come yet: imports from a slow disk take minutes."""


def init_distributed(device: str | None = None, *, timeout: float | None = None) -> torch.device:
    """Join the process group that torchrun announces in the environment, if any, and choose this rank's device.

    Args:
        device: see ``choose_device``. Under torchrun each rank takes the GPU of its local rank. CPU ranks communicate through
            gloo, GPU ranks through NCCL.
        timeout: seconds after which a collective that some rank has not reached ends with an error; by default PyTorch's, 600 for
            NCCL and 1800 for gloo. Ranks that start later than others are waited for in any case, for ``START_SECONDS``.

    Raises:
        ValueError: no such device on this machine, one GPU for several ranks, the timeout is not above 0, or a rank did not start.
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
        backend, bound = ("nccl", chosen) if chosen.type == "cuda" else ("gloo", None)
        store, own_rank, world = _met_at_the_start()
        dist.init_process_group(backend, store=store, rank=own_rank, world_size=world, device_id=bound, timeout=limit)
    return chosen


def _met_at_the_start() -> tuple[Store, int, int]:
    """The store that torchrun announces, this rank and the number of ranks, once all ranks have reached this point.

    The backends meet with the timeout of their collectives, which a machine that starts slowly may exceed.
    """
    patience = timedelta(seconds=START_SECONDS)
    try:
        store, own_rank, world = next(rendezvous("env://", timeout=patience))
        store.set(f"started/{own_rank}", "")
        store.wait([f"started/{each}" for each in range(world)], patience)
    except dist.DistStoreError as error:
        raise ValueError(f"not all ranks have started within {START_SECONDS:g} s ({str(error)[:200]})") from error
    return store, own_rank, world


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
