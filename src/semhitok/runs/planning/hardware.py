"""GPUs by name: memory and peak speed as their data sheets state them."""

from __future__ import annotations

from dataclasses import dataclass

USABLE = 0.92
"""Fraction of the memory that tensors can have: the rest goes to driver, kernels, communication buffers and fragmentation."""


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Attributes:
        name: as users write it.
        memory: bytes.
        flops: peak FLOP/s of dense bf16 matrix products with fp32 accumulation.
    """

    name: str
    memory: int
    flops: float


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("a100-40gb", 40 * 2**30, 312e12),
        Gpu("a100", 80 * 2**30, 312e12),
        Gpu("h100", 80 * 2**30, 989e12),
        Gpu("h200", 141 * 10**9, 989e12),
        Gpu("b200", 180 * 10**9, 2250e12),
        Gpu("l40s", 48 * 10**9, 362e12),
        Gpu("rtx4090", 24 * 2**30, 165e12),
        Gpu("mi300x", 192 * 10**9, 1307e12),
    )
}


def find_gpu(name: str) -> Gpu:
    """A GPU by its name.

    Raises:
        ValueError: the name is not known.
    """
    if name.lower() not in GPUS:
        raise ValueError(f"there is no GPU {name!r} in the table; {', '.join(GPUS)} are")
    return GPUS[name.lower()]
