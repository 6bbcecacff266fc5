from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semhitok.data.randomness import SampleOrder, random_integers, splitmix64


def test_splitmix64_known_values() -> None:
    """The first outputs of the reference generator seeded with 1234567: state += golden ratio, then the finaliser."""
    golden = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + golden * i) % 2**64 for i in range(3)], dtype=np.uint64)
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_random_integers_are_uniform() -> None:
    counts = np.bincount(random_integers(0, 5, np.arange(30_000), 10), minlength=10)
    assert counts.min() > 2_800
    assert counts.max() < 3_200


@given(st.integers(1, 200), st.integers(-(2**40), 2**40))
@settings(max_examples=50, deadline=None)
def test_every_epoch_is_a_permutation(length: int, seed: int) -> None:
    indices = SampleOrder(length, seed).indices(0, 3 * length).reshape(3, length)
    assert (np.sort(indices, axis=1) == np.arange(length)).all()


@given(st.integers(1, 50), st.integers(0, 300), st.lists(st.integers(0, 60), max_size=6))
@settings(max_examples=80, deadline=None)
def test_the_order_does_not_depend_on_how_it_is_asked_for(length: int, start: int, counts: list[int]) -> None:
    whole = SampleOrder(length, 7).indices(start, sum(counts))
    order, parts = SampleOrder(length, 7), []
    position = start
    for count in counts:
        parts.append(order.indices(position, count))
        position += count
    assert np.array_equal(np.concatenate([*parts, np.empty(0, np.int64)]), whole)


def test_order_may_be_asked_backwards() -> None:
    order = SampleOrder(10, 0)
    late, early = order.indices(55, 10), order.indices(0, 10)
    assert np.array_equal(SampleOrder(10, 0).indices(0, 10), early)
    assert np.array_equal(order.indices(55, 10), late)


def test_epochs_and_seeds_differ_and_positions_are_uniform() -> None:
    order = SampleOrder(1000, 0)
    assert (order.indices(0, 1000) != order.indices(1000, 1000)).mean() > 0.99
    assert (order.indices(0, 1000) != SampleOrder(1000, 1).indices(0, 1000)).mean() > 0.99
    first = np.array([SampleOrder(8, seed).indices(0, 1)[0] for seed in range(4_000)])
    counts = np.bincount(first, minlength=8)
    assert counts.min() > 400
    assert counts.max() < 600


def test_errors() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        SampleOrder(0, 0)
    with pytest.raises(ValueError, match="start at 0, not -1"):
        SampleOrder(5, 0).indices(-1, 3)
