"""What a tokenizer costs: images encoded and decoded per second, and memory.

Shapes: B images, H x W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from semhitok.tokenizers.protocol import Tokenizer


@dataclass(frozen=True)
class Cost:
    """Speed and memory on one device; compare only figures of one machine with the same number of threads.

    Attributes:
        encode_per_second, decode_per_second: images, the fastest of several passes.
        weights_megabytes: parameters and buffers, including a frozen teacher that encoding needs.
        peak_megabytes: most memory allocated during both passes; None on a CPU, where it is not known per model.
    """

    encode_per_second: float
    decode_per_second: float
    weights_megabytes: float
    peak_megabytes: float | None


@torch.no_grad()
def measure_cost(model: Tokenizer, pixel_values: Tensor, *, passes: int = 3) -> Cost:
    """Time encoding and decoding of a batch, after one pass to warm up.

    Args:
        model: in eval mode.
        pixel_values: (B,3,H,W) in [-1,1], on the model's device.
        passes: timed passes of each.
    """
    device = pixel_values.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    encoded = model.encode(pixel_values)
    encode = _fastest(lambda: model.encode(pixel_values), passes, device)
    decode = _fastest(lambda: model.decode(encoded.ids, encoded.grid), passes, device)
    tensors = [*model.parameters(), *model.buffers()]
    return Cost(
        encode_per_second=len(pixel_values) / encode,
        decode_per_second=len(pixel_values) / decode,
        weights_megabytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6,
        peak_megabytes=torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None,
    )


def _fastest(run: Callable[[], Any], passes: int, device: torch.device) -> float:
    """Seconds of the fastest of several passes."""
    seconds = []
    for _ in range(passes):
        _wait(device)
        begun = time.perf_counter()
        run()
        _wait(device)
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
