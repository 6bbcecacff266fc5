"""Records of several sources in given shares; what comes at a position is a pure function of (seed, position).

Nothing is consumed and nothing is saved: any process can ask for any position, so a run resumes anywhere. Positions come in
blocks of ``BLOCK``. Each source gets its share of every block, exact in the long run, at places that a hash shuffles; and each
source goes through its records in shuffled epochs, so none is seen twice before all have been seen once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semhitok.data.randomness import SampleOrder, random_bits
from semhitok.data.record_sources import RecordSource
from semhitok.data.records import Record
from semhitok.data.sample import digest_of_lines

BLOCK = 4096
# A share must be worth two places of a block, or rounding could leave a source with fewer than none.
SMALLEST_SHARE = 2 / BLOCK
# Streams of randomness; the sources' orders have seeds of their own.
_PLACES, _CHOICE, _CHANCE = -1, -2, -3


@dataclass(frozen=True)
class Drawn:
    """What the mixture has at a position.

    Attributes:
        source: which source.
        index: which of its records.
        choice: integer >= 0 for ``RecordSource.read``.
        chance: a number in [0,1), for what is done with a share of the records only.
    """

    source: int
    index: int
    choice: int
    chance: float


class Mixture:
    """An endless sequence of records.

    Args:
        sources: where records come from.
        weights: relative share of records from each.
        seed: of order, places, choices and chances.

    Raises:
        ValueError: no source, a weight that is not above 0, or a share below 0.05 %.
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
        self._orders = [SampleOrder(len(source), seed + 1 + index) for index, source in enumerate(sources)]
        self._block: tuple[int, np.ndarray, np.ndarray] | None = None

    @property
    def fingerprint(self) -> str:
        """Digest of sources, shares and seed."""
        bounds = (repr(float(bound)) for bound in self._bounds)
        return digest_of_lines([*(source.fingerprint for source in self.sources), *bounds, str(self.seed)])

    def __len__(self) -> int:
        """Records of all sources."""
        return sum(map(len, self.sources))

    def at(self, position: int) -> Drawn:
        """What comes at a position >= 0."""
        number, place = divmod(position, BLOCK)
        sources, ranks = self._places(number)
        source = int(sources[place])
        own_position = int(self._given(number)[source] + ranks[place])
        bits = [int(random_bits(self.seed, stream, np.array([position]))[0]) for stream in (_CHOICE, _CHANCE)]
        index = int(self._orders[source].indices(own_position, 1)[0])
        return Drawn(source, index, bits[0], bits[1] / 2**64)

    def read(self, drawn: Drawn) -> Record:
        """The record; raises ``RecordError``."""
        return self.sources[drawn.source].read(drawn.index, drawn.choice)

    def name(self, drawn: Drawn) -> str:
        """The record's name, without reading it."""
        return self.sources[drawn.source].name(drawn.index)

    def _given(self, block: int) -> np.ndarray:
        """Positions that each source has had before a block, (sources,) int64."""
        return np.diff(np.round(block * BLOCK * self._bounds).astype(np.int64))

    def _places(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The source at each place of a block, and how many of the block's places before it are that source's."""
        if self._block is None or self._block[0] != number:
            counts = self._given(number + 1) - self._given(number)
            # The seed and stream of a block must not be those of another use.
            shuffled = np.argsort(random_bits(self.seed + 1, _PLACES - number, np.arange(BLOCK)))
            sources = np.repeat(np.arange(len(counts)), counts)[shuffled]
            ranks = np.empty(BLOCK, dtype=np.int64)
            for source, count in enumerate(counts):
                ranks[sources == source] = np.arange(count)
            self._block = number, sources, ranks
        return self._block[1:]
