"""The device that a user names."""

from __future__ import annotations

import re

import torch


def choose_device(name: str | None = None) -> torch.device:
    """The named device: cpu, cuda, a GPU by its number (``cuda:1`` or ``1``), or another accelerator of this machine, such as
    mps; None takes a GPU if available.

    Raises:
        ValueError: torch knows no such device, or this machine has none.
    """
    number = re.fullmatch("[0-9]+", name or "")
    try:
        device = torch.device(f"cuda:{name}" if number else name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        device = None
    if device is not None and device.type == "cuda":
        found = torch.cuda.device_count()
        if (device.index or 0) < found:
            return device
        raise ValueError(f"device {name} was requested, but {found} GPUs were found; use device cpu")
    if device is None or device.type not in _here():
        raise ValueError(
            f"there is no device {name!r} on this machine; {', '.join(_here())} and GPUs by their number, such as 0 or cuda:0, "
            "are accepted"
        )
    return device


def _here() -> list[str]:
    """Kinds of devices of this machine."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return list(dict.fromkeys(["cpu", *([accelerator.type] if accelerator is not None else [])]))
