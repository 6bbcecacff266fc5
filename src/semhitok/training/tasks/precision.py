"""Mixed precision of the training tasks."""

from __future__ import annotations

import torch

from semhitok.types import Precision


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """bf16 autocast, or a no-op for fp32; weights, codebooks, losses and optimizer state are fp32 either way."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
