"""Computing in true fp32, whatever precision the caller has chosen: ids must not depend on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

from semhitok.process_switch import ProcessSwitch, Undo


@contextmanager
def exact_fp32(device: torch.device) -> Iterator[None]:
    """Matrix products and convolutions of fp32 tensors without autocast and without reduced precision (TF32, bf16).

    Autocast is a setting of the thread; the precision of products is one of the process. The latter is changed while any thread
    is inside and restored when the last one leaves; other threads compute in true fp32 meanwhile. A graph of ``torch.export`` holds
    neither: its runtime decides.
    """
    with nullcontext() if torch.compiler.is_exporting() else _switch, without_autocast(device):
        yield


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Computing in the precision of the tensors; nothing in a graph of ``torch.export``, which holds no such regions."""
    return nullcontext() if torch.compiler.is_exporting() else torch.autocast(device.type, enabled=False)


def _compute_exactly() -> Undo:
    backends: Any = torch.backends
    changed = [backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv]
    before = [backend.fp32_precision for backend in changed]

    def set_precisions(precisions: list[str]) -> None:
        for backend, precision in zip(changed, precisions, strict=True):
            backend.fp32_precision = precision

    set_precisions(["ieee"] * len(changed))
    return partial(set_precisions, before)


_switch = ProcessSwitch(_compute_exactly)
