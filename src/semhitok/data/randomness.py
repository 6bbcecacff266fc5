"""Random numbers and the order of samples as pure functions of (seed, position).

There is no state to save, and results do not depend on batch size, workers or ranks.
"""

from __future__ import annotations

from collections.abc import Callable

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
        stream: distinguishes independent uses of the same seed (an epoch, an augmentation, an attempt).
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


def across_epochs(start: int, count: int, length: int, rest: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """Sample indices at positions start ... start + count - 1 of endless epochs; (count,) int64.

    Args:
        start, count: at least 0.
        length: number of samples of an epoch.
        rest: (epoch, offset) -> indices from that offset on, at least one and at most to the end of the epoch.
    """
    if start < 0 or count < 0:
        raise ValueError(f"positions start at 0, not {start}, and a count is not negative, not {count}.")
    parts = []
    while count > 0:
        part = rest(*divmod(start, length))[:count]
        parts.append(part)
        start, count = start + len(part), count - len(part)
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


class SampleOrder:
    """Endless shuffled epochs: position p is in epoch p // length, and each epoch has its own permutation.

    There is no state: any process can access any position. An epoch's permutation sorts the indices by a hash of (seed,
    epoch, index); two epochs are cached with 8 bytes per sample each.

    Args:
        length: number of samples, >= 1.
        seed: the run's seed.
    """

    def __init__(self, length: int, seed: int) -> None:
        if length < 1:
            raise ValueError(f"an order needs at least one sample, not {length}.")
        self.length = length
        self.seed = seed
        self._permutations: dict[int, np.ndarray] = {}

    def indices(self, start: int, count: int) -> np.ndarray:
        """Sample indices at positions start ... start + count - 1; (count,) int64 in [0, length)."""
        return across_epochs(start, count, self.length, lambda epoch, offset: self._permutation(epoch)[offset:])

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._permutations:
            # Distinct inputs of a bijection have distinct hashes, so there are no ties for the sort to break.
            permutation = np.argsort(random_bits(self.seed, epoch, np.arange(self.length)))
            self._permutations = {old: p for old, p in self._permutations.items() if old == epoch - 1}
            self._permutations[epoch] = permutation
        return self._permutations[epoch]
