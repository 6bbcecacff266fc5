from __future__ import annotations

import math

import pytest
import torch

from semhitok.quantizers import CodeUsage, underused_subcodebooks
from semhitok.quantizers.usage import usage_by_frequency


def test_by_hand() -> None:
    usage = CodeUsage(4)
    usage.update(torch.tensor([[0, 0], [1, 3]]))
    assert usage.counts.tolist() == [2, 1, 0, 1]
    assert usage.usage == 0.75
    # Entropy of (1/2, 1/4, 1/4) is 1.5 bits.
    assert usage.perplexity == pytest.approx(2**1.5)


def test_extremes() -> None:
    usage = CodeUsage(8)
    assert usage.usage == usage.perplexity == 0
    usage.update(torch.full((3, 3), 5))
    assert usage.perplexity == pytest.approx(1)
    usage = CodeUsage(8)
    usage.update(torch.arange(8))
    assert usage.perplexity == pytest.approx(8)
    assert usage.usage == 1
    usage.update(torch.empty(0, dtype=torch.int64))
    assert usage.counts.sum() == 8


def test_updates_add_up() -> None:
    ids = torch.randint(0, 10, (3, 50))
    usage = CodeUsage(10)
    for row in ids:
        usage.update(row)
    assert torch.equal(usage.counts, torch.bincount(ids.flatten(), minlength=10))
    share = torch.bincount(ids.flatten(), minlength=10) / 150
    assert CodeUsage.of(usage.counts).perplexity == pytest.approx(
        math.exp(torch.distributions.Categorical(share).entropy()), rel=1e-5
    )


def test_all_reduce_is_a_new_object_that_counts_on_its_own() -> None:
    usage = CodeUsage(3)
    usage.update(torch.tensor([1]))
    total = usage.all_reduce()
    usage.update(torch.tensor([2]))
    assert total.counts.tolist() == [0, 1, 0]


def test_state_round_trip() -> None:
    usage = CodeUsage(5)
    usage.update(torch.tensor([0, 4, 4]))
    restored = CodeUsage(5)
    restored.load_state_dict(usage.state_dict())
    usage.update(torch.tensor([1]))
    assert restored.counts.tolist() == [1, 0, 0, 0, 2]
    with pytest.raises(ValueError, match="for 5 codes; this codebook has 6"):
        CodeUsage(6).load_state_dict(restored.state_dict())


@pytest.mark.parametrize("ids", [[0, 4], [-1, 2]])
def test_ids_out_of_range(ids: list[int]) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 3\]"):
        CodeUsage(4).update(torch.tensor(ids))


def test_underused_subcodebooks() -> None:
    counts_Km = torch.tensor([[1, 0, 0, 0], [3, 1, 0, 0], [0, 0, 0, 0], [0, 9, 0, 0], [1, 1, 1, 1]])
    assert underused_subcodebooks(counts_Km) == 2
    assert underused_subcodebooks(torch.tensor([[4], [0]])) == 0


def test_underused_by_their_own_size() -> None:
    counts_Km = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]])
    assert underused_subcodebooks(counts_Km) == 2
    assert underused_subcodebooks(counts_Km, torch.tensor([1, 4, 3])) == 1


def test_usage_by_frequency_by_hand() -> None:
    counts_Km = torch.tensor([[8, 8, 8, 0], [0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0], [3, 2, 1, 1]])
    rare, frequent = usage_by_frequency(counts_Km, bands=2)
    assert (rare.codes, rare.fewest, rare.most, rare.underused) == (2, 1, 2, 2)
    assert rare.share_of_hits == pytest.approx(3 / 34)
    assert rare.used == pytest.approx(0.25)
    # One draw meets 1 of 4 sub-codes; two draws meet 1 or, with odds 3 to 1, 2 of them.
    assert rare.usable == pytest.approx((0.25 + (0.25 * 1 + 0.75 * 2) / 4) / 2)
    assert (frequent.codes, frequent.fewest, frequent.most, frequent.underused) == (2, 7, 24, 0)
    assert frequent.used == pytest.approx((1 + 0.75) / 2)
    assert sum(band.share_of_hits for band in (rare, frequent)) == pytest.approx(1)
    sized = usage_by_frequency(counts_Km, torch.tensor([3, 4, 1, 4, 4]), bands=9)
    assert [band.used for band in sized] == [1.0, 0.25, 1.0, 1.0]
    assert usage_by_frequency(torch.zeros(3, 2, dtype=torch.int64)) == []
