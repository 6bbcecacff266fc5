"""Packing: every sequence whole and once, rows independent of how they are asked for, bad records counted."""

from __future__ import annotations

import random
from itertools import islice

import numpy as np
import pytest
from tests.data.test_mixture import Numbers

from semhitok.data.mixture import Mixture
from semhitok.data.packed_feed import (
    BAD_RECORDS,
    IMAGE_IDS,
    INPUT_IDS,
    LABELS,
    NO_IMAGE,
    POSITION_IDS,
    PackedFeed,
    RowFormat,
)
from semhitok.data.packing import IGNORED, PackedRows, TokenSequence, pack
from semhitok.data.records import Picture, Record, RecordError

FORM = RowFormat(image_size=8, image_shape=(2,), pad_id=0)


def build(record: Record, chance: float) -> list[TokenSequence]:
    """As many ids as the record's number says, the number itself; every tenth has an image's ids, every 29th is bad."""
    number = int(record.text.split()[0]) + 1
    if number % 29 == 0:
        raise RecordError(f"{record.name}: is bad")
    ids = np.full(number % 37 + 2, number, dtype=np.int64)
    pictures = (Picture("p", ids=np.array([number, 1])),) if number % 10 == 0 else ()
    return [TokenSequence(ids, ids.copy(), pictures)]


def rows(**options) -> PackedRows:
    return PackedRows(Mixture([Numbers("a", 900)], [1.0], 5), build, 64, **({"block_rows": 8} | options))


def test_best_fit_fills_rows_and_loses_nothing():
    lengths = [random.Random(1).randint(1, 50) for _ in range(200)]
    packed = pack(lengths, 64)
    assert sorted(index for row in packed for index in row) == list(range(200))
    assert all(sum(lengths[index] for index in row) <= 64 for row in packed)
    assert len(packed) <= 1.05 * sum(lengths) / 64 + 1
    assert len(pack(lengths, 64, rows=10)) == 10


def test_an_epoch_of_rows_has_every_good_record_once():
    packed = rows()
    blocks = 900 // packed.records_per_block
    seen = [int(s.ids_L[0]) for number in range(blocks) for row in packed.block(number).rows for s in row]
    assert len(seen) == len(set(seen))
    lost = sum(packed.block(number).left_out + len(packed.block(number).bad) for number in range(blocks))
    assert len(seen) + lost == blocks * packed.records_per_block
    positions = blocks * packed.block_rows * 64
    used = sum(len(s) for number in range(blocks) for row in packed.block(number).rows for s in row)
    assert used > 0.85 * positions


def test_batches_do_not_depend_on_where_they_begin_or_on_ranks():
    feed = PackedFeed(rows(), FORM, max_bad_share=0.1)
    batches = feed.batches(0, 6)
    whole = [next(batches) for _ in range(4)]
    later = next(PackedFeed(rows(), FORM, max_bad_share=0.1).batches(12, 6))
    ranks = [next(PackedFeed(rows(), FORM, max_bad_share=0.1).batches(12, 6, rank, 2)) for rank in range(2)]
    for name in (INPUT_IDS, LABELS, POSITION_IDS):
        assert later.extras[name].equal(whole[2].extras[name])
        assert [row for part in ranks for row in part.extras[name].tolist()] == whole[2].extras[name].tolist()


def test_rows_hold_sequences_one_after_the_other():
    batch = next(PackedFeed(rows(), FORM, max_bad_share=0.1).batches(0, 8))
    assert len(batch.split(4)) == 4
    packed = rows().block(0)
    for row, ids, labels, places, image_ids in zip(
        packed.rows,
        *(batch.extras[name].tolist() for name in (INPUT_IDS, LABELS, POSITION_IDS, IMAGE_IDS)),
        strict=True,
    ):
        wanted = [int(each) for sequence in row for each in sequence.ids_L]
        assert ids == wanted + [0] * (64 - len(wanted))
        starts = np.cumsum([0] + [len(sequence) for sequence in row])
        assert [place for place, position in enumerate(places) if position == 0] == starts[starts < 64].tolist()
        # The first of a sequence is not predicted from the one before.
        firsts = set(starts.tolist())
        assert labels == [IGNORED if p in firsts or p >= len(wanted) else each for p, each in enumerate(ids)]
        known = [each for each in image_ids if each[0] != NO_IMAGE]
        assert known == [s.pictures[0].ids.tolist() for s in row if s.pictures]  # type: ignore[union-attr]


def test_bad_records_are_skipped_counted_and_named():
    feed, packed = PackedFeed(rows(), FORM, max_bad_share=0.1), rows()
    batches = feed.batches(0, 8)
    counted = sum(int(next(batches).extras[BAD_RECORDS].sum()) for _ in range(3))
    bad = [entry for number in range(3) for entry in packed.block(number).bad]
    assert counted == len(bad) > 0
    assert feed.bad == dict(bad)
    assert all("is bad" in reason for reason in feed.bad.values())


def test_too_many_bad_records_end_the_run():
    batches = PackedFeed(rows(), FORM, max_bad_share=0.001).batches(0, 8)
    with pytest.raises(ValueError, match=r"too many records cannot be used .*is bad"):
        list(islice(batches, 100))


def test_a_sequence_longer_than_a_row_is_bad_and_none_that_fits_is_an_error():
    short = PackedRows(Mixture([Numbers("a", 900)], [1.0], 5), build, 20, 8)
    assert any("tokens, a row holds 20" in reason for _, reason in short.block(0).bad)
    with pytest.raises(ValueError, match=r"none of the first 384 records can be used; .* a row holds 1"):
        PackedRows(Mixture([Numbers("a", 900)], [1.0], 5), build, 1, 8)
