"""Do all ranks agree: on what they were started with, and later on the values that each of them computes alike?"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from semhitok.distributed.collectives import gather_values
from semhitok.distributed.processes import collective_device, is_distributed
from semhitok.distributed.sharding import is_sharded
from semhitok.distributed.waiting import wait_for_all

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SHOWN = 80  # characters of a value
_PART = 1 << 22  # words


def require_agreement(facts: Mapping[str, object]) -> None:
    """Check that every rank passes the same facts; a collective, which waits for late ranks.

    Raises:
        ValueError: on all ranks, with the first fact that differs.
    """
    if not is_distributed():
        return
    wait_for_all()
    every = gather_values({name: str(value) for name, value in facts.items()})
    for name in dict.fromkeys(name for each in every for name in each):
        values = [each.get(name, "none") for each in every]
        if len(set(values)) > 1:
            other = next(number for number, value in enumerate(values) if value != values[0])
            raise ValueError(
                f"rank {other} was started with {name} {values[other][:_SHOWN]}, rank 0 with {values[0][:_SHOWN]}: "
                "start all ranks with the same recipe, options and data"
            )


def different_tensors(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the tensors that are not the same on all ranks, bit for bit. A collective.

    A digest of each is compared, so almost nothing is communicated. Sharded tensors are left out: they differ on purpose.
    """
    if not is_distributed():
        return []
    whole = [(name, tensor) for name, tensor in tensors if not is_sharded(tensor)]
    names = [name for name, _ in whole]
    described = "\n".join(f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in whole)
    if len(set(gather_values(zlib.crc32(described.encode())))) > 1:
        return ["the names or shapes of the tensors"]
    if not whole:
        return []
    device = collective_device()
    smallest = torch.stack([digest(tensor).to(device) for _, tensor in whole])
    largest = smallest.clone()
    dist.all_reduce(smallest, op=dist.ReduceOp.MIN)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return [name for name, differs in zip(names, (smallest != largest).tolist(), strict=True) if differs]


@torch.no_grad()
def digest(tensor: Tensor) -> Tensor:
    """A number (int64, 0-d, on the tensor's device) that depends on every bit and on where it is.

    Against drift, not against forgery: the sum of all words, each weighted by its row and its column, modulo 2^64.
    """
    contiguous = tensor.detach().contiguous()
    if contiguous.is_complex():
        contiguous = torch.view_as_real(contiguous)
    words = contiguous.reshape(-1).view(_INTEGERS[contiguous.element_size()])
    rows = words.reshape(tensor.shape[0] if tensor.ndim and tensor.numel() else 1, -1)
    columns = torch.arange(1, rows.shape[1] + 1, device=rows.device)
    found = torch.zeros((), dtype=torch.int64, device=rows.device)
    done = 0
    for part in rows.split(max(1, _PART // max(1, rows.shape[1]))):  # bounds the memory of the products
        numbers = torch.arange(done + 1, done + len(part) + 1, device=rows.device)
        found += ((part.to(torch.int64) * columns).sum(dim=1) * numbers).sum()
        done += len(part)
    return found


def named_tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors of nested dicts, lists and tuples, with their paths."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, Mapping):
        for key, item in state.items():
            yield from named_tensors(item, f"{name}/{key}")
    elif isinstance(state, list | tuple):
        for index, item in enumerate(state):
            yield from named_tensors(item, f"{name}/{index}")
