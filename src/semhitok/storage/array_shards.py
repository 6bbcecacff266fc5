"""An array of one row per image in many files, so that several processes compute it and none begins anew after an interruption.

Each file is a cache (see ``array_cache``) of a fixed number of rows, whatever the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semhitok.storage.array_cache import ArrayCache, CacheKey

SHARD_ROWS = 4096
MISSING = -1
"""The value of all integers of a row that could not be computed."""


@dataclass(frozen=True)
class ShardPlan:
    """Where the shards of an array are.

    Attributes:
        folder: their folder.
        key: what the array depends on.
        shape: shape of the array, rows first.
        dtype: of the array.
    """

    folder: Path
    key: CacheKey
    shape: tuple[int, ...]
    dtype: Any

    def __len__(self) -> int:
        """Number of shards."""
        return -(-self.shape[0] // SHARD_ROWS)

    def rows(self, shard: int) -> range:
        """The rows of one shard."""
        return range(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, self.shape[0]))

    def path(self, shard: int) -> Path:
        """The file of one shard."""
        return self.folder / f"{shard:06d}.cache"

    def write(self, shard: int, compute: Callable[[range], np.ndarray]) -> None:
        """Compute the rows of a shard and write them, unless that is done; a file is whole or not there."""
        if self.path(shard).exists():
            return
        rows = self.rows(shard)
        shape = (len(rows), *self.shape[1:])
        with ArrayCache.create(self.path(shard), self._key(rows), shape, self.dtype) as cache:
            cache.write(0, compute(rows))
            cache.finish()

    def open(self) -> ShardedArray:
        """The whole array; raises a ``ValueError`` if a file is missing or of another array."""
        parts = [ArrayCache.open(self.path(shard), self._key(self.rows(shard))).array for shard in range(len(self))]
        return ShardedArray(parts, self.shape, self.path)

    def _key(self, rows: range) -> CacheKey:
        return replace(self.key, data=f"{self.key.data} {rows.start}-{rows.stop}")


class ShardedArray:
    """Rows of several memory-mapped files; ``array[rows, columns]`` with an index for both, as in numpy."""

    def __init__(self, parts: list[np.memmap], shape: tuple[int, ...], path: Callable[[int], Path]) -> None:
        self.shape, self.ndim, self.dtype = shape, len(shape), parts[0].dtype
        self._parts, self._path = parts, path

    def __getitem__(self, places: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Values (B, ...) at rows (B) and columns (B).

        Raises:
            ValueError: a row is missing.
        """
        rows, columns = places
        found = np.empty((len(rows), *self.shape[2:]), dtype=self.dtype)
        for place, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
            found[place] = self._parts[row // SHARD_ROWS][row % SHARD_ROWS, column]
            if (found[place] == MISSING).all():
                raise ValueError(
                    f"image {row} could not be read when its ids were computed, but can be now: delete "
                    f"{self._path(row // SHARD_ROWS)} to have them computed again"
                )
        return found
