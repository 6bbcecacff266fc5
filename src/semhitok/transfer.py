"""Small tensors on their way from the host to a device."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the host to ``device`` without waiting until the device has done its work.

    A copy from pageable memory to a GPU waits; one from pinned memory is queued. PyTorch keeps that memory until the copy is done.
    """
    if tensor.device.type == "cpu" and device.type not in ("cpu", "mps", "meta"):
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
