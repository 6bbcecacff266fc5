"""The pool of recent vectors."""

from __future__ import annotations

import pytest
import torch

from semhitok.training.codebook_maintenance import Reservoir


def test_keeps_the_latest_whole_steps_and_columns_together():
    pool = Reservoir(10)
    for step in range(5):
        pool.add(torch.full((4, 2), float(step)), torch.full((4,), step))
    assert len(pool) == 8
    vectors, ids = pool.local()
    assert vectors.tolist() == [[3.0, 3.0]] * 4 + [[4.0, 4.0]] * 4
    assert ids.tolist() == [3] * 4 + [4] * 4
    pool.clear()
    assert len(pool) == 0


def test_one_step_larger_than_the_pool_is_kept():
    pool = Reservoir(3)
    pool.add(torch.ones(5, 2))
    assert len(pool) == 5


def test_rows_are_copies_without_gradient():
    pool, vectors = Reservoir(10), torch.ones(4, 2, requires_grad=True)
    pool.add(vectors)
    with torch.no_grad():
        vectors.zero_()
    (kept,) = pool.local()
    assert not kept.requires_grad
    assert torch.equal(kept, torch.ones(4, 2))


def test_state_goes_to_another_pool():
    pool, other = Reservoir(10), Reservoir(10)
    pool.add(torch.rand(3, 2), torch.arange(3))
    other.load_state_dict(pool.state_dict())
    assert all(torch.equal(*pair) for pair in zip(pool.local(), other.local(), strict=True))


def test_an_empty_pool_is_refused():
    with pytest.raises(ValueError, match="at least 1 vector, got 0"):
        Reservoir(0)
