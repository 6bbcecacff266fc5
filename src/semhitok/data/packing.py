"""Sequences of different lengths in rows of one length: which go together.

Shapes: L positions of a sequence, R positions of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from semhitok.data.mixture import Drawn, Mixture
from semhitok.data.records import Picture, Record, RecordError

IGNORED = -100
# Blocks are filled a little less than they could be: what does not fit into a block's rows is left out.
FILL = 0.99
PROBED = 384


@dataclass(frozen=True)
class TokenSequence:
    """A record as ids, places for its images kept.

    Attributes:
        ids_L: (L,) int64, with a placeholder for every token of an image.
        labels_L: (L,) int64, the id itself where it is to be predicted, -100 where not; not shifted.
        pictures: what belongs at the placeholders, in order.
    """

    ids_L: np.ndarray
    labels_L: np.ndarray
    pictures: tuple[Picture, ...] = ()

    def __len__(self) -> int:
        return len(self.ids_L)


Build = Callable[[Record, float], TokenSequence]
"""Record and chance to a sequence; raises ``RecordError``, or a ``ValueError`` that ends the run."""


@dataclass(frozen=True)
class Block:
    """Rows that were packed together.

    Attributes:
        rows: of each row its sequences.
        bad: (record, reason) of records that cannot be used.
        left_out: records for which there was no room.
        read: records looked at.
    """

    rows: list[list[TokenSequence]]
    bad: list[tuple[str, str]] = field(default_factory=list)
    left_out: int = 0
    read: int = 0


def pack(lengths: Sequence[int], row_length: int, rows: int | None = None) -> list[list[int]]:
    """Best-fit decreasing: the longest first, each into the fullest row that has room.

    Args:
        lengths: of the sequences, at most row_length.
        row_length: R.
        rows: at most so many rows; what does not fit is in none. None opens as many as are needed.

    Returns:
        Indices of the sequences of each row.
    """
    packed: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        fitting = [row for row, left in enumerate(room) if left >= lengths[index]]
        if fitting:
            row = min(fitting, key=lambda each: room[each])
        elif rows is None or len(packed) < rows:
            packed.append([])
            room.append(row_length)
            row = len(packed) - 1
        else:
            continue
        packed[row].append(index)
        room[row] -= lengths[index]
    return packed


class PackedRows:
    """A mixture's records as an endless sequence of rows; which records share a row depends on (seed, row) alone.

    Rows come in blocks, and each block takes its own stretch of the mixture's positions: as many as fit, by the lengths of
    the first records.

    Args:
        mixture: the records.
        build: makes their sequences.
        row_length: R.
        block_rows: rows of a block; more waste less and are read at once.

    Raises:
        ValueError: none of the first records can be used; the message is the first one's reason.
    """

    def __init__(self, mixture: Mixture, build: Build, row_length: int, block_rows: int = 64) -> None:
        self.mixture, self.build, self.row_length, self.block_rows = mixture, build, row_length, block_rows
        # In turns over the mixture's own block, so that every source is among the first.
        sequences, bad = self._read(range(PROBED))
        if not sequences:
            raise ValueError(f"none of the first {PROBED} records can be used; {bad[0][1]}")
        rows = len(pack([len(sequence) for sequence in sequences], row_length))
        self.records_per_block = max(1, int(FILL * block_rows * PROBED / rows))
        self._kept: dict[int, Block] = {}

    def block(self, number: int) -> Block:
        """One block; the last two are kept."""
        if number not in self._kept:
            start = number * self.records_per_block
            sequences, bad = self._read(range(start, start + self.records_per_block))
            packed = pack([len(sequence) for sequence in sequences], self.row_length, self.block_rows)
            packed += [[]] * (self.block_rows - len(packed))
            # Long sequences fill the first rows: shuffled, each batch has some of every length.
            order = np.random.default_rng((self.mixture.seed & 0xFFFF_FFFF, number)).permutation(self.block_rows)
            rows = [[sequences[index] for index in packed[row]] for row in order]
            left_out = len(sequences) - sum(map(len, packed))
            self._kept = {old: block for old, block in self._kept.items() if old == number - 1}
            self._kept[number] = Block(rows, bad, left_out, self.records_per_block)
        return self._kept[number]

    def __len__(self) -> int:
        """Rows in which every record comes about once."""
        return max(1, len(self.mixture) * self.block_rows // self.records_per_block)

    def _read(self, positions: range) -> tuple[list[TokenSequence], list[tuple[str, str]]]:
        sequences, bad = [], []
        for position in positions:
            drawn: Drawn = self.mixture.at(position)
            try:
                sequence = self.build(self.mixture.read(drawn), drawn.chance)
                if len(sequence) > self.row_length:
                    raise RecordError(
                        f"{self.mixture.name(drawn)}: has {len(sequence)} tokens, a row holds {self.row_length}"
                    )
                sequences.append(sequence)
            except RecordError as error:
                bad.append((self.mixture.name(drawn), str(error)))
        return sequences, bad
