"""Is there memory for what a run keeps in any case? Asked before anything is loaded onto the device."""

from __future__ import annotations

import torch

from semhitok.runs.planning.costs import Memory

GIB = 2**30


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a GPU; None for other devices, which are not checked."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def check_memory(memory: Memory, free: int | None) -> str | None:
    """Compare the plan with what is free.

    Args:
        memory: of the first stage's setting.
        free: from ``free_memory``.

    Returns:
        A line for the user if the run may run out of memory, or None.

    Raises:
        ValueError: weights, gradients and optimizer states alone do not fit, which no smaller batch changes.
    """
    if free is None:
        return None
    # At the end of a step there is a gradient for each of the optimizer's two moments.
    kept = memory.weights + 1.5 * memory.optimizer + memory.averages
    if kept > free:
        raise ValueError(
            f"weights, gradients and optimizer states need {kept / GIB:.1f} GiB on each GPU, {free / GIB:.1f} GiB are free: "
            "use --shard full under torchrun with more GPUs, or train less (task.trained lora or adapter)"
        )
    if memory.total > free:
        return (
            f"about {memory.total / GIB:.1f} GiB are needed on each GPU, {free / GIB:.1f} GiB are free: if memory runs out, "
            "raise loop.accumulation or set task.checkpoint_activations"
        )
    return None
