"""Sizes of sub-codebooks: against all possible ones, and against the closed form."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semhitok.quantizers.allotment import allot_sizes


def expected_error(sizes: list[int], frequency: list[float], error: list[float], dim: float) -> float:
    return sum(f * e * m ** (-2 / dim) for f, e, m in zip(frequency, error, sizes, strict=True))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_other_sizes_have_a_smaller_error(data: st.DataObject):
    codes = data.draw(st.integers(1, 4))
    value = st.floats(0, 10, allow_subnormal=False)
    frequency, error = (data.draw(st.lists(value, min_size=codes, max_size=codes)) for _ in range(2))
    minimum = data.draw(st.integers(1, 2))
    maximum = data.draw(st.integers(minimum, 6))
    total = data.draw(st.integers(codes * minimum, codes * maximum))
    dim = data.draw(st.sampled_from([1, 2.5, 15]))
    found = allot_sizes(
        torch.tensor(frequency).double(),
        torch.tensor(error).double(),
        total,
        dim=dim,
        minimum=minimum,
        maximum=maximum,
    )
    assert sum(found) == total
    assert all(minimum <= size <= maximum for size in found)
    every = itertools.product(range(minimum, maximum + 1), repeat=codes)
    best = min(expected_error(list(sizes), frequency, error, dim) for sizes in every if sum(sizes) == total)
    assert expected_error(found, frequency, error, dim) == pytest.approx(best, rel=1e-9, abs=1e-12)


def test_large_sizes_follow_the_closed_form():
    torch.manual_seed(0)
    frequency, error, dim = torch.rand(50).double() + 0.1, torch.rand(50).double() + 0.1, 6
    sizes = torch.tensor(allot_sizes(frequency, error, 20_000, dim=dim, maximum=5000)).double()
    weight = (frequency * error) ** (dim / (dim + 2))
    torch.testing.assert_close(sizes, 20_000 * weight / weight.sum(), atol=1.0, rtol=0.01)


def test_equal_codes_share_equally_and_codes_never_seen_get_the_least():
    ones = torch.ones(6)
    assert allot_sizes(ones, ones, 48, dim=15, maximum=32) == [8] * 6
    assert allot_sizes(ones, ones, 50, dim=15, maximum=32) == [9, 9, 8, 8, 8, 8]
    assert allot_sizes(torch.tensor([0, 5, 5]), torch.ones(3), 21, dim=15, minimum=1, maximum=32) == [1, 10, 10]
    assert allot_sizes(torch.tensor([0, 0, 0]), torch.ones(3), 9, dim=15, maximum=9) == [7, 1, 1]
    assert allot_sizes(torch.tensor([1, 2]), torch.ones(2), 6, dim=15, minimum=3, maximum=3) == [3, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total": 2}, "3 sizes from 1 to 4 .* cannot add up to 2, only to 3 to 12"),
        ({"total": 13}, "cannot add up to 13, only to 3 to 12"),
        ({"minimum": 0}, "3 sizes from 0 to 4"),
        ({"minimum": 5}, "3 sizes from 5 to 4"),
        ({"dim": 0}, "dim must be above 0, got 0"),
        ({"error_K": torch.tensor([1.0, -1.0, 0.0])}, "errors must be finite and at least 0, got -1.0"),
        ({"frequency_K": torch.tensor([1.0, float("nan"), 0.0])}, "frequencies must be finite"),
        ({"frequency_K": torch.ones(2)}, r"got shapes \(2,\) and \(3,\)"),
    ],
)
def test_what_cannot_be_allotted(changes: dict, message: str):
    arguments = {"frequency_K": torch.ones(3), "error_K": torch.ones(3), "total": 6, "dim": 3, "maximum": 4} | changes
    with pytest.raises(ValueError, match=message) as caught:
        allot_sizes(**arguments)
    assert "\n" not in str(caught.value)
