"""Packing of sequences of different lengths into rows of one length.

Shapes: L positions of a sequence, R positions of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from semhitok.data.mixture import Drawn, Mixture
from semhitok.data.records import Picture, Record, RecordError

IGNORED = -100
# Blocks are filled slightly less than possible, since records that do not fit into a block's rows are left out.
FILL = 0.99
PROBED = 384


@dataclass(frozen=True)
class TokenSequence:
    """A record as ids with placeholders for its images.

    Attributes:
        ids_L: (L,) int64, with a placeholder for every token of an image.
        labels_L: (L,) int64, ids to be predicted and -100 elsewhere; not shifted.
        pictures: the images of the placeholders, in order.
    """

    ids_L: np.ndarray
    labels_L: np.ndarray
    pictures: tuple[Picture, ...] = ()

    def __len__(self) -> int:
        return len(self.ids_L)


Build = Callable[[Record, float], Sequence[TokenSequence]]
"""Record and chance to its sequences, usually one; raises ``RecordError``, or a ``ValueError`` that ends the run."""


@dataclass(frozen=True)
class Block:
    """Rows that were packed together.

    Attributes:
        rows: the sequences of each row.
        bad: (record, reason) of unusable records.
        left_out: number of sequences that did not fit.
        read: number of records read.
    """

    rows: list[list[TokenSequence]]
    bad: list[tuple[str, str]] = field(default_factory=list)
    left_out: int = 0
    read: int = 0


def pack(lengths: Sequence[int], row_length: int, rows: int | None = None) -> list[list[int]]:
    """Best-fit decreasing: longest first, each into the fullest row that has room.

    Args:
        lengths: lengths of the sequences, at most row_length.
        row_length: R.
        rows: maximum number of rows, beyond which sequences are left out; None for as many as needed.

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
    """A mixture's records as an endless sequence of rows; the records of a row depend only on (seed, row).

    Rows come in blocks, each from its own range of the mixture's positions, whose size is estimated from the lengths of the
    first records.

    Args:
        mixture: the records.
        build: builds their sequences.
        row_length: R.
        block_rows: rows of a block, which is read as a whole; more rows waste less space.

    Raises:
        ValueError: none of the first records can be used; the message gives the first one's reason.
    """

    def __init__(self, mixture: Mixture, build: Build, row_length: int, block_rows: int = 64) -> None:
        self.mixture, self.build, self.row_length, self.block_rows = mixture, build, row_length, block_rows
        sequences, bad = self._read(range(PROBED))
        if not sequences:
            raise ValueError(f"none of the first {PROBED} records can be used; {bad[0][1]}")
        rows = len(pack([len(sequence) for sequence in sequences], row_length))
        self.records_per_block = max(1, int(FILL * block_rows * PROBED / rows))
        self._kept: dict[int, Block] = {}

    def block(self, number: int) -> Block:
        """One block; the last two are cached."""
        if number not in self._kept:
            start = number * self.records_per_block
            sequences, bad = self._read(range(start, start + self.records_per_block))
            packed = pack([len(sequence) for sequence in sequences], self.row_length, self.block_rows)
            packed += [[]] * (self.block_rows - len(packed))
            # Long sequences fill the first rows; shuffling gives each batch sequences of every length.
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
                found = self.build(self.mixture.read(drawn), drawn.chance)
                longest = max(map(len, found))
                if longest > self.row_length:
                    raise RecordError(
                        f"{self.mixture.name(drawn)}: has {longest} tokens, a row holds {self.row_length}"
                    )
                sequences += found
            except RecordError as error:
                bad.append((self.mixture.name(drawn), str(error)))
        return sequences, bad
