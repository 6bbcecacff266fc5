"""In which order samples are seen: a pure function of (seed, position)."""

from __future__ import annotations

import numpy as np

from semhitok.data.randomness import random_bits


class SampleOrder:
    """Endless shuffled epochs: position p lies in epoch p // length, and each epoch is a permutation of its own.

    Nothing is consumed and nothing is saved: any process can ask for any position. An epoch's permutation sorts the
    indices by a hash of (seed, epoch, index); two epochs are kept, 8 bytes per sample each.

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
        if start < 0 or count < 0:
            raise ValueError(f"positions start at 0, not {start}, and a count is not negative, not {count}.")
        parts = []
        while count > 0:
            epoch, offset = divmod(start, self.length)
            part = self._permutation(epoch)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._permutations:
            # Distinct inputs of a bijection have distinct hashes, so there are no ties for the sort to break.
            permutation = np.argsort(random_bits(self.seed, epoch, np.arange(self.length)))
            self._permutations = {old: p for old, p in self._permutations.items() if old == epoch - 1}
            self._permutations[epoch] = permutation
        return self._permutations[epoch]
