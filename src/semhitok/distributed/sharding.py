"""Parameters, gradients and optimizer states divided among the ranks by torch's FSDP2, applied to a model from outside.

Each block of a model is a unit, and everything else (tables, norms, adapter, head) is one more. The ranks gather a unit for its
forward and backward passes and otherwise hold 1/ranks of it as DTensors. Gradients come out of the backward pass as their mean
over the ranks, divided like the parameters.

With mixed precision, blocks are gathered and computed in bf16, and their gradients are averaged in fp32. The remaining unit stays
in fp32: the gradient of a large head is a sum over chunks of tokens, which bf16 would round after each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from semhitok.distributed.processes import is_distributed, is_main, world_size
from semhitok.types import ShardKind

Result = TypeVar("Result")


class ShardableParts(nn.Module):
    """Modules that are trained together, called as one, so that their sharded parameters are at hand within the call.

    Args:
        parts: the modules by name; their parameters are named ``NAME.parameter``.
    """

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, compute: Callable[..., Result], *arguments: Any) -> Result:
        """``compute(*arguments)``, within which parameters outside the blocks are whole and blocks gather their own."""
        return compute(*arguments)

    @torch.no_grad()
    def without_gradients(self, compute: Callable[..., Result], *arguments: Any) -> Result:
        """As calling this module, for evaluation and generation.

        A collective if sharded: every rank calls it and runs the blocks equally often, such as for equally long texts.
        """
        found = self(compute, *arguments)
        if isinstance(self, FSDPModule):
            self.reshard()
        return found


def shard_mesh(kind: ShardKind, device: torch.device) -> DeviceMesh | None:
    """The ranks among which parameters are divided; None if they are not, as in a single process.

    Args:
        kind: ``full`` divides over all ranks. ``hybrid`` divides over the ranks of a node, as many as torchrun announces in
            LOCAL_WORLD_SIZE, and keeps a copy on each node: less memory is saved, but only gradients cross the network.
        device: device of the ranks.

    Raises:
        ValueError: ``hybrid``, and the nodes have different numbers of ranks.
    """
    if kind == "none" or not is_distributed():
        return None
    ranks = world_size()
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", ranks)) if kind == "hybrid" else ranks
    if per_node < 1 or ranks % per_node:
        raise ValueError(
            f"hybrid sharding needs as many ranks on each node, but {ranks} ranks are no multiple of the {per_node} of this one"
        )
    if per_node == ranks:
        return init_device_mesh(device.type, (ranks,), mesh_dim_names=("shard",))
    return init_device_mesh(device.type, (ranks // per_node, per_node), mesh_dim_names=("replicate", "shard"))


def shard(
    parts: ShardableParts,
    blocks: Sequence[nn.Module],
    mesh: DeviceMesh,
    *,
    precision: torch.dtype | None = None,
    whole: Iterable[nn.Parameter] = (),
) -> None:
    """Divide the parameters in place, moving them to the mesh's device unit by unit; a collective.

    Args:
        parts: must have the same weights on every rank (``broadcast_parameters``).
        blocks: the modules among ``parts`` that are gathered one at a time, such as a transformer's layers.
        mesh: from ``shard_mesh``.
        precision: dtype in which blocks are gathered and computed; None keeps that of the parameters.
        whole: parameters that stay whole on every rank, such as those of a frozen image tokenizer.
    """
    # Autocast chooses the dtype of each operation; inputs are not cast as a whole.
    mixed = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=mixed)
    fully_shard(parts, mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False), ignored_params=set(whole))


def reduce_between_nodes(parts: nn.Module, *, now: bool) -> None:
    """With hybrid sharding, whether the next backward pass also averages over the nodes: once per optimizer step is enough."""
    if isinstance(parts, FSDPModule):
        parts.set_requires_all_reduce(now)


def is_sharded(tensor: object) -> bool:
    """Whether a tensor is divided among ranks."""
    return isinstance(tensor, DTensor)


def whole_tensor(tensor: Tensor) -> Tensor:
    """The tensor itself, or all of a sharded one; for these a collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_on_main(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Whole tensors in the main rank's memory (CPU), gathered one at a time; other ranks get an empty dict. A collective."""
    gathered = {}
    for name, tensor in tensors:
        whole = whole_tensor(tensor.detach())
        if is_main():
            gathered[name] = whole.cpu()
    return gathered
