"""The controls: what each rule makes encoder and decoder agree on, and how evenly the random one deals."""

from __future__ import annotations

import pytest
import torch

from semhitok.quantizers.grouping import ByShiftedCode, grouping_of


def test_the_papers_rule_and_the_single_codebook():
    ids = torch.randint(0, 7, (2, 5))
    assert torch.equal(grouping_of("semantic", 7)(ids), ids)
    assert grouping_of("shared", 7)(ids).eq(0).all()
    assert [grouping_of(kind, 7).groups for kind in ("semantic", "shared", "random")] == [7, 1, 7]


@pytest.mark.parametrize(("codes", "places"), [(1024, 64), (16_384, 256), (16, 16), (7, 5)])
def test_every_place_has_its_own_permutation_of_the_codes(codes: int, places: int):
    every = torch.arange(codes)[:, None].expand(codes, places)
    groups = ByShiftedCode(codes)(every)
    assert torch.equal(groups.sort(dim=0).values, every)  # a permutation: k can be told from (group, place)
    if codes > 4 * places:  # no sub-codebook serves one semantic code twice: each pools as many as there are places
        assert len(groups[0].unique()) == places


def test_shifts_by_hand():
    """The golden-ratio sequence: place n is shifted by the share n * 0.618... mod 1 of K."""
    golden = (5**0.5 - 1) / 2
    expected = torch.tensor([int(1000 * ((n * golden) % 1)) for n in range(64)])
    assert torch.equal(ByShiftedCode(1000)(torch.zeros(1, 64, dtype=torch.int64))[0], expected)


def test_meaning_says_nothing_about_the_group():
    """Patches of one semantic code, all over the image, spread evenly: equal shares within one patch or two."""
    hits_K = torch.bincount(ByShiftedCode(16)(torch.full((1, 256), 11))[0], minlength=16)
    assert 14 <= hits_K.min() <= hits_K.max() <= 18
