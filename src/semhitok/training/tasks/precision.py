"""Mixed precision of the training tasks."""

from __future__ import annotations

import torch

from semhitok.types import Precision


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """bf16 autocast, or none; weights, codebooks, losses and optimizer stay in fp32 either way."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
