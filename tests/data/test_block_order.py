"""The order of blocks: whole epochs, well mixed, and nothing but (seed, position) decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semhitok.data.block_order import BlockOrder

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)


@given(SIZES, st.integers(1, 5), st.integers(-(2**40), 2**40))
@settings(max_examples=60, deadline=None)
def test_every_epoch_is_a_permutation(sizes: list[int], window: int, seed: int):
    length = sum(sizes)
    indices = BlockOrder(sizes, seed, window).indices(0, 3 * length).reshape(3, length)
    assert (np.sort(indices, axis=1) == np.arange(length)).all()


@given(SIZES, st.integers(1, 5), st.integers(0, 100), st.lists(st.integers(0, 30), max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_order_does_not_depend_on_how_it_is_asked_for(sizes: list[int], window: int, start: int, counts: list[int]):
    whole = BlockOrder(sizes, 7, window).indices(start, sum(counts))
    order, parts, position = BlockOrder(sizes, 7, window), [], start
    for count in counts:
        parts.append(order.indices(position, count))
        position += count
    assert np.array_equal(np.concatenate([*parts, np.empty(0, np.int64)]), whole)


def test_a_window_lies_in_few_blocks_and_neighbours_come_from_all_over():
    blocks, size, window = 400, 50, 16
    order = BlockOrder([size] * blocks, 3, window).indices(0, blocks * size)
    assert {len(set(part // size)) for part in order.reshape(-1, window * size)} == {window}
    distances = np.abs(np.diff(order))
    assert abs(distances.mean() / (blocks * size / 3) - 1) < 0.1  # a full shuffle has a third of the length
    assert (distances < size).mean() < 2 / window
    assert not np.array_equal(order, BlockOrder([size] * blocks, 4, window).indices(0, blocks * size))


def test_an_order_of_nothing_is_refused():
    with pytest.raises(ValueError, match="an order needs samples"):
        BlockOrder([0, 0], 0)
