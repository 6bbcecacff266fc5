"""Records of several sources in given proportions; the record at a position is a pure function of (seed, position).

There is no state: any process can access any position, so a run can resume anywhere. Positions are divided into blocks of
``BLOCK``. Each source gets its share of every block, exact in the long run, at places shuffled by a hash; and each source's
records come in shuffled epochs, so that none is repeated before all have been used once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semhitok.data.block_order import own_or_full_order
from semhitok.data.randomness import random_bits
from semhitok.data.record_sources import RecordSource
from semhitok.data.records import Record
from semhitok.data.sample import digest_of_lines

BLOCK = 4096
# A share must be at least two places of a block, or rounding could give a source a negative count.
SMALLEST_SHARE = 2 / BLOCK
# Random streams; the sources' orders have their own seeds.
_PLACES, _CHOICE, _CHANCE = -1, -2, -3


@dataclass(frozen=True)
class Drawn:
    """The mixture's choice at a position.

    Attributes:
        source: index of the source.
        index: index of the record in its source.
        choice: integer >= 0 for ``RecordSource.read``.
        chance: a number in [0,1), for decisions that apply to a fraction of the records.
    """

    source: int
    index: int
    choice: int
    chance: float


class Mixture:
    """An endless sequence of records.

    Args:
        sources: where records come from.


        weights: relative proportion of each source.
        seed: seed of order, places, choices and chances.

    Raises:
        ValueError: there is no source, a weight is not above 0, or a share is below 0.05 %.
    """

    def __init__(self, sources: Sequence[RecordSource], weights: Sequence[float], seed: int) -> None:
        if not sources or len(sources) != len(weights):
            raise ValueError(
                f"one weight for each of at least one source is needed, got {len(weights)} for {len(sources)}"
            )
        shares = np.asarray(weights, dtype=np.float64)
        if not (shares > 0).all() or not np.isfinite(shares).all():
            raise ValueError(f"weights must be above 0, got {list(weights)}")
        shares /= shares.sum()
        if shares.min() < SMALLEST_SHARE:
            raise ValueError(f"a source needs a share of at least {SMALLEST_SHARE:.2%}, got {shares.min():.2%}")
        self.sources, self.seed = tuple(sources), seed
        self._bounds = np.concatenate([[0.0], np.cumsum(shares)])
        self._bounds[-1] = 1.0
        self._orders = [own_or_full_order(source, seed + 1 + index) for index, source in enumerate(sources)]
        self._block: tuple[int, np.ndarray, np.ndarray] | None = None

    @property
    def fingerprint(self) -> str:
        """Digest of sources, shares and seed."""
        bounds = (repr(float(bound)) for bound in self._bounds)
        return digest_of_lines([*(source.fingerprint for source in self.sources), *bounds, str(self.seed)])

    def __len__(self) -> int:
        """Number of records in all sources."""
        return sum(map(len, self.sources))

    def at(self, position: int) -> Drawn:
        """The choice at a position >= 0."""
        number, place = divmod(position, BLOCK)
        sources, ranks = self._places(number)
        source = int(sources[place])
        own_position = int(self._given(number)[source] + ranks[place])
        bits = [int(random_bits(self.seed, stream, np.array([position]))[0]) for stream in (_CHOICE, _CHANCE)]
        index = int(self._orders[source].indices(own_position, 1)[0])
        return Drawn(source, index, bits[0], bits[1] / 2**64)

    def read(self, drawn: Drawn) -> Record:
        """Read the record; raises ``RecordError``."""
        return self.sources[drawn.source].read(drawn.index, drawn.choice)

    def name(self, drawn: Drawn) -> str:
        """The record's name, without reading it."""
        return self.sources[drawn.source].name(drawn.index)

    def _given(self, block: int) -> np.ndarray:
        """Number of positions of each source before a block, (sources,) int64."""
        return np.diff(np.round(block * BLOCK * self._bounds).astype(np.int64))

    def _places(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The source at each place of a block, and the number of earlier places of that source in the block."""
        if self._block is None or self._block[0] != number:
            counts = self._given(number + 1) - self._given(number)
            # Seed and stream of a block must differ from all other uses.
            shuffled = np.argsort(random_bits(self.seed + 1, _PLACES - number, np.arange(BLOCK)))
            sources = np.repeat(np.arange(len(counts)), counts)[shuffled]
            ranks = np.empty(BLOCK, dtype=np.int64)
            for source, count in enumerate(counts):
                ranks[sources == source] = np.arange(count)
            self._block = number, sources, ranks
        return self._block[1:]
