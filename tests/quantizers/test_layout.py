"""Joint ids by offsets: counted one by one, and the paper's k * m + j as the special case."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semhitok.quantizers.layout import IdLayout


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=9))
def test_ids_count_through_all_pixel_codes_in_order(sizes: list[int]):
    layout = IdLayout.of(len(sizes), sizes)
    pairs = torch.tensor([(k, j) for k, size in enumerate(sizes) for j in range(size)])
    ids = torch.arange(len(pairs))
    assert layout.vocab_size == len(pairs)
    assert torch.equal(layout.flatten(*pairs.T), ids)
    assert torch.equal(torch.stack(layout.split(ids), dim=1), pairs)
    square = ids[: len(ids) // 2 * 2].unflatten(0, (2, -1))  # any shape
    assert torch.equal(layout.flatten(*layout.split(square)), square)
    table = layout.table(ids + 1)
    assert table.shape == (len(sizes), max(sizes))
    for (k, j), value in zip(pairs.tolist(), (ids + 1).tolist(), strict=True):
        assert table[k, j] == value
    assert table.sum() == (ids + 1).sum()
    assert torch.equal(layout.exists.sum(1), torch.tensor(sizes))


def test_equal_sizes_are_the_papers_ids():
    for layout in (IdLayout.of(5, 3), IdLayout.of(5, [3] * 5)):
        ids = torch.arange(15)
        assert torch.equal(layout.split(ids)[0], ids // 3)
        assert torch.equal(layout.split(ids)[1], ids % 3)
        assert torch.equal(layout.flatten(ids // 3, ids % 3), ids)


def test_a_model_on_the_meta_device_has_its_ids():
    with torch.device("meta"):
        layout = IdLayout.of(2, [1, 2])
        assert layout.split(torch.tensor([2], device="cpu"))[1].item() == 1


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [(3, [1, 2], "2 sub-codebook sizes do not match 3 semantic codes"), (2, [3, 0], "at least 1 pixel code, got 0")],
)
def test_sizes_that_do_not_fit(codes: int, sizes: list[int], message: str):
    with pytest.raises(ValueError, match=message):
        IdLayout.of(codes, sizes)
