"""The controls: what each rule makes encoder and decoder agree on, and how evenly the random one deals."""

from __future__ import annotations

import pytest
import torch

from semhitok.quantizers import HierarchicalQuantizer
from semhitok.quantizers.grouping import ByShiftedCode, grouping_of
from semhitok.quantizers.semantic_groups import semantic_groups


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


def test_semantic_codes_of_a_group_share_their_pixel_codes():
    quantizer = HierarchicalQuantizer(4, 3, 5, choice="grouped", semantic_groups=[1, 0, 1, 0])
    assert quantizer.codebook_KmD.shape == (2, 3, 5)
    ids, inner = torch.arange(4)[None], torch.tensor([[2, 1, 2, 1]])
    codes = quantizer.lookup(ids, inner)[0]
    table = torch.nn.functional.normalize(quantizer.codebook_KmD, dim=-1)
    assert torch.equal(codes, torch.stack([table[1, 2], table[0, 1], table[1, 2], table[0, 1]]))
    assert torch.equal(
        quantizer.flatten_ids(ids, inner), torch.tensor([[2, 4, 8, 10]])
    )  # an id still says its semantic code
    z_BND = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0))
    cosine = torch.einsum("nd,nmd->nm", torch.nn.functional.normalize(z_BND[0], dim=-1), table[[1, 0, 1, 0]])
    assert torch.equal(quantizer(z_BND, ids).ids[0], cosine.argmax(dim=-1))


def test_alike_codes_are_grouped_and_random_groups_have_their_sizes():
    generator = torch.Generator().manual_seed(1)
    centres_GD = 20 * torch.randn(8, 6, generator=generator)
    kind_K = torch.arange(8).repeat(4)[torch.randperm(32, generator=generator)]
    codes_KD = centres_GD[kind_K] + torch.randn(32, 6, generator=generator)
    spread = {}
    for kind in ("alike", "random"):
        groups_K = torch.tensor(semantic_groups(codes_KD, 8, kind, seed=0))
        assert torch.equal(groups_K.bincount(), torch.full((8,), 4))
        assert groups_K.tolist() == semantic_groups(codes_KD, 8, kind, seed=0)
        spread[kind] = sum(float(codes_KD[groups_K == group].var(dim=0).sum()) for group in range(8))
    assert spread["alike"] < 0.5 * spread["random"]
    # What no exchange of two codes between groups can better is the least squared distance, as far as pairs can tell.
    apart = torch.tensor(semantic_groups(torch.tensor([[0.0], [9.0], [0.1], [9.1], [5.0], [5.1]]), 3, "alike", seed=3))
    assert (apart[0], apart[1], apart[4]) == (apart[2], apart[3], apart[5])
    with pytest.raises(ValueError, match="32 semantic codes cannot be divided into 5 groups of one size"):
        semantic_groups(codes_KD, 5, "random", seed=0)
