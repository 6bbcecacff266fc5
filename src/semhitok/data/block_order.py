"""A shuffled order that reads storage block by block, as a pure function of (seed, position).

A block is a run of samples that lie together: a row group of a parquet file, a stretch of a tar. Each epoch shuffles all blocks,
takes ``window`` of them at a time, and shuffles the samples of these. So neighbours come from blocks all over the data, while the
samples of a window, which are read at about the same time, lie in few places.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Protocol, runtime_checkable

import numpy as np

from semhitok.data.randomness import SampleOrder, across_epochs, random_bits

WINDOW = 32
"""Blocks that are shuffled together."""
# Random stream of the orders within windows; epochs of blocks use 0, 1, 2, ...
_WINDOW_STREAM = -1_000_000


@runtime_checkable
class OwnOrder(Protocol):
    """A source that is read in an order of its own, since random access to it is slow."""

    def order(self, seed: int) -> SampleOrder | BlockOrder:
        """The order of its samples."""
        ...


class BlockOrder:
    """Endless epochs, each a permutation of all samples; see the module. It has the interface of ``SampleOrder``.

    There is no state: any process can access any position. 16 bytes for each block and 8 for each sample of two windows are kept.

    Args:
        sizes: number of samples of each block; blocks are numbered in this order, and so are samples.
        seed: the run's seed.
        window: number of blocks that are shuffled together.
    """

    def __init__(self, sizes: Sequence[int] | np.ndarray, seed: int, window: int = WINDOW) -> None:
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.length = int(self.sizes.sum())
        if self.length < 1 or window < 1 or self.sizes.min() < 0:
            raise ValueError(
                f"an order needs samples and a window of at least 1 block, not {self.length} and {window}."
            )
        self.seed, self.window = seed, window
        self._starts = np.cumsum(self.sizes) - self.sizes
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._windows: dict[tuple[int, int], np.ndarray] = {}

    def indices(self, start: int, count: int) -> np.ndarray:
        """Sample indices at positions start ... start + count - 1; (count,) int64 in [0, length)."""
        return across_epochs(start, count, self.length, self._rest_of_window)

    def _rest_of_window(self, epoch: int, offset: int) -> np.ndarray:
        _, bounds = self._epoch(epoch)
        number = int(np.searchsorted(bounds, offset, side="right")) - 1
        return self._window(epoch, number)[offset - bounds[number] :]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The blocks in the epoch's order, and the first position of each window, with the epoch's length at the end."""
        if epoch not in self._epochs:
            blocks = np.argsort(random_bits(self.seed, epoch, np.arange(len(self.sizes))))
            ends = np.cumsum(self.sizes[blocks])[self.window - 1 :: self.window]
            bounds = np.concatenate([[0], ends[ends < self.length], [self.length]])
            self._epochs = {old: found for old, found in self._epochs.items() if old == epoch - 1}
            self._epochs[epoch] = blocks, bounds
        return self._epochs[epoch]

    def _window(self, epoch: int, number: int) -> np.ndarray:
        """The samples of a window in their order."""
        if (epoch, number) not in self._windows:
            blocks = self._epoch(epoch)[0][number * self.window : (number + 1) * self.window]
            runs = [self._starts[block] + np.arange(int(self.sizes[block])) for block in blocks]
            samples = np.concatenate(runs)
            bits = random_bits(self.seed, _WINDOW_STREAM - epoch, samples)
            kept = list(self._windows.items())[-1:]
            self._windows = dict([*kept, ((epoch, number), samples[np.argsort(bits)])])
        return self._windows[epoch, number]


def own_or_full_order(source: Sized, seed: int) -> SampleOrder | BlockOrder:
    """The source's own order if it has one, otherwise a full shuffle of every epoch."""
    return source.order(seed) if isinstance(source, OwnOrder) else SampleOrder(len(source), seed)
