"""Gradients averaged over the ranks while the backward pass goes on.

Buckets of gradients are all-reduced as soon as they are complete. Buckets follow from the parameters alone, not from the order in
which gradients arrived in an earlier step, and are sent in one order on all ranks: a resumed run therefore adds up the same numbers
in the same order as the uninterrupted one, on any number of ranks (DistributedDataParallel does not: docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from semhitok.distributed.processes import is_distributed, world_size
from semhitok.distributed.sharding import is_sharded

BUCKET_BYTES = 25 * 2**20
"""A bucket is closed once it holds so much: large enough for the network's full rate, small enough to begin early."""


@contextmanager
def averaged_gradients(parameters: Iterable[nn.Parameter], *, now: bool = True) -> Iterator[None]:
    """Replace each gradient by its mean over the ranks, within a ``with`` block around the last backward pass of a step.

    The same parameters must have a gradient on every rank at the end of the block, and the graphs must be alike. Parameters
    without a gradient are skipped, and so are sharded ones, whose gradients come averaged out of the backward pass. Until the
    block ends, a second copy of the gradients is held. A collective, unless ``now`` is False; a no-op in a single process.

    Args:
        parameters: in the order in which the forward pass uses them; another order gives the same gradients later.
        now: False for the other micro-batches of the step, whose gradients only accumulate.
    """
    if not now or not is_distributed():
        yield
        return
    averaging = _Averaging(each for each in parameters if each.requires_grad and not is_sharded(each))
    hooks = [each.register_post_accumulate_grad_hook(averaging.ready) for each in averaging.parameters]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    averaging.finish()


@dataclass(frozen=True)
class _Sent:
    """A bucket on its way: the gradients, and their concatenation that is being summed."""

    gradients: list[Tensor]
    flat: Tensor
    work: dist.Work


class _Averaging:
    """The buckets of one optimizer step, filled from the last parameter to the first."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)[::-1]
        self._buckets = list(_buckets(self.parameters))
        self._bucket_of = {each: number for number, bucket in enumerate(self._buckets) for each in bucket}
        self._missing = [len(bucket) for bucket in self._buckets]
        self._next, self._sent = 0, list[_Sent]()

    def ready(self, parameter: Tensor) -> None:
        """Take note of a complete gradient; send the buckets whose turn it is."""
        self._missing[self._bucket_of[parameter]] -= 1  # pyright: ignore[reportArgumentType]
        while self._next < len(self._buckets) and not self._missing[self._next]:
            self._send()

    def _send(self) -> None:
        gradients = [each.grad for each in self._buckets[self._next] if each.grad is not None]
        self._next += 1
        if gradients:
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            work = dist.all_reduce(flat, async_op=True)
            assert work is not None
            self._sent.append(_Sent(gradients, flat, work))

    def finish(self) -> None:
        """Send what is left, such as buckets with a parameter that was not used, and write the means."""
        while self._next < len(self._buckets):
            self._send()
        for sent in self._sent:
            sent.work.wait()
            parts = (sent.flat / world_size()).split([gradient.numel() for gradient in sent.gradients])
            for gradient, part in zip(sent.gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters grouped by dtype and device; a group is closed once it holds BUCKET_BYTES."""
    open_buckets: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
    for parameter in parameters:
        bucket = open_buckets.setdefault((parameter.dtype, parameter.device), [])
        bucket.append(parameter)
        if sum(member.nbytes for member in bucket) >= BUCKET_BYTES:
            yield open_buckets.pop((parameter.dtype, parameter.device))
    yield from open_buckets.values()
