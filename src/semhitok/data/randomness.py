"""Random numbers as a pure function of (seed, position): no state to save, the same for any batch, worker or rank."""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(x: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser (Steele, Lea, Flood 2014): a bijection of uint64 that mixes every bit."""
    x = np.asarray(x, dtype=np.uint64)
    with np.errstate(over="ignore"):
        x = x + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def random_bits(seed: int, stream: int, positions: np.ndarray) -> np.ndarray:
    """64 random bits per position.

    Args:
        seed: the run's seed, any integer.
        stream: tells apart independent uses of the same seed (an epoch, an augmentation, an attempt).
        positions: (N,) integers >= 0.

    Returns:
        (N,) uint64.
    """
    key = splitmix64(np.asarray([seed & 0xFFFF_FFFF_FFFF_FFFF], dtype=np.uint64))
    key = splitmix64(key ^ np.uint64(stream & 0xFFFF_FFFF_FFFF_FFFF))
    return splitmix64(key ^ np.asarray(positions).astype(np.uint64))


def random_integers(seed: int, stream: int, positions: np.ndarray, limit: int) -> np.ndarray:
    """(N,) int64 in [0, limit), one per position; the bias of the modulo is below ``limit`` / 2**64."""
    return (random_bits(seed, stream, positions) % np.uint64(limit)).astype(np.int64)
