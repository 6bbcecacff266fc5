"""Sequences of packed rows are found, grouped by length, and brought back to their places."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semhitok.mllm.packed_attention import CPU_SPREAD, PackedSequences, _groups_of


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(1, 20) | st.integers(100, 300), min_size=1, max_size=6), min_size=1, max_size=4))
def test_groups_hold_every_sequence_once(lengths: list[list[int]]) -> None:
    width = max(map(sum, lengths))
    rows = [[*row, width - sum(row)] if sum(row) < width else row for row in lengths]
    positions_BR = torch.stack([torch.cat([torch.arange(length) for length in row]) for row in rows])
    found = PackedSequences.of(positions_BR)
    # Each sequence by hand: the places it has in the flattened rows.
    wanted, begin = [], 0
    for length in (length for row in rows for length in row):
        wanted.append(list(range(begin, begin + length)))
        begin += length
    taken = []
    for places_SL in found.groups:
        shortest = width
        for places in places_SL.tolist():
            sequence = list(dict.fromkeys(places))  # the first place is repeated behind the end
            assert places == sequence + [places[0]] * (len(places) - len(sequence))
            taken.append(sequence)
            shortest = min(shortest, len(sequence))
        assert places_SL.shape[1] - shortest < CPU_SPREAD
    assert sorted(taken) == wanted
    joined = torch.cat([places_SL.flatten() for places_SL in found.groups])
    assert torch.equal(joined[found.back_M], torch.arange(positions_BR.numel()))


@pytest.mark.parametrize(
    ("device", "same", "other"),
    [("cuda", [(129, 256), (257, 512)], [(128, 129)]), ("cpu", [(129, 192), (257, 320)], [(192, 193), (257, 321)])],
)
def test_groups_are_finer_on_a_cpu(device: str, same: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    for pairs, equal in ((same, True), (other, False)):
        for pair in pairs:
            first, second = _groups_of(np.array(pair), device)
            assert (first == second) == equal
