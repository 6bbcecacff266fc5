"""Sub-codebooks of different sizes, and the controls that choose them otherwise, against brute force."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.quantizers.replacement import replace_below

from semhitok.quantizers import HierarchicalQuantizer

SIZES = [3, 1, 5, 2, 4, 4]


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=8), dim=st.integers(2, 6))
def test_lookup_equals_brute_force_in_every_own_sub_codebook(sizes: list[int], dim: int):
    quantizer = HierarchicalQuantizer(len(sizes), sizes, dim)
    z_BND, semantic_ids_BN = 3 * torch.randn(2, 9, dim), torch.randint(0, len(sizes), (2, 9))
    output = quantizer(z_BND, semantic_ids_BN)
    joint_BN = quantizer.flatten_ids(semantic_ids_BN, output.ids)
    table = torch.cat([quantizer.codebook_KmD[k, :size] for k, size in enumerate(sizes)]).detach().double()
    assert quantizer.codes == len(table)
    owner = torch.tensor([k for k, size in enumerate(sizes) for _ in range(size)])
    cosines = F.cosine_similarity(z_BND.double()[:, :, None], table, dim=-1)
    cosines = cosines.masked_fill(owner != semantic_ids_BN[..., None], -torch.inf)
    torch.testing.assert_close(cosines.gather(2, joint_BN[..., None])[..., 0], cosines.amax(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(output.codes.double(), F.normalize(table[joint_BN], dim=-1), rtol=0, atol=1e-6)
    assert torch.equal(output.codes, quantizer.lookup(*quantizer.split_ids(joint_BN)))


def test_equal_sizes_are_the_same_quantizer_bit_for_bit():
    books = []
    for sizes in (4, [4] * 6):
        torch.manual_seed(0)
        quantizer = HierarchicalQuantizer(6, sizes, 5)
        z_ND, ids_N = torch.randn(90, 5), torch.randint(0, 6, (90,))
        quantizer.initialise(z_ND, ids_N, seed=0)
        counts_Km = torch.randint(0, 3, (6, 4))
        revived = replace_below(quantizer, z_ND, ids_N, counts_Km, threshold=1, seed=0, step=1)
        output = quantizer(z_ND[None], ids_N[None])
        books.append((quantizer.codebook_KmD.detach(), output.ids, quantizer.flatten_ids(ids_N[None], output.ids)))
        assert revived > 0
    assert all(torch.equal(one, other) for one, other in zip(*books, strict=True))


def test_initialise_and_replacement_fill_each_sub_codebook_and_nothing_else():
    torch.manual_seed(0)
    quantizer = HierarchicalQuantizer(6, SIZES, 5)
    z_ND, ids_N = torch.randn(120, 5), torch.arange(120) % 6
    quantizer.initialise(z_ND, ids_N, seed=0, iterations=8)
    for k, size in enumerate(SIZES):
        own_ND, codes_mD = F.normalize(z_ND[ids_N == k], dim=-1), quantizer.codebook_KmD[k, :size].detach()
        nearest_N = (own_ND @ codes_mD.T).argmax(1)
        # A fixed point of k-means up to the last iteration: every code is used and has length 1.
        assert len(nearest_N.unique()) == size
        torch.testing.assert_close(codes_mD.norm(dim=-1), torch.ones(size))
        assert quantizer.codebook_KmD[k, size:].eq(0).all()
    mean_D = F.normalize(F.normalize(z_ND[ids_N == 1], dim=-1).mean(0), dim=0)
    torch.testing.assert_close(quantizer.codebook_KmD[1, 0].detach(), mean_D)
    before = quantizer.codebook_KmD.detach().clone()
    counts_Km = torch.full((6, 5), 9)
    counts_Km[0, 2] = counts_Km[2, 4] = 0
    for k, size in enumerate(SIZES):
        counts_Km[k, size:] = 0  # codes that do not exist are never hit, and must not be replaced
    assert replace_below(quantizer, z_ND, ids_N, counts_Km, threshold=1, seed=0, step=0) == 2
    changed = (quantizer.codebook_KmD != before).any(-1).nonzero().tolist()
    assert changed == [[0, 2], [2, 4]]


def test_a_small_sub_codebook_is_not_too_rare_to_judge_by_the_largest_one():
    quantizer = HierarchicalQuantizer(2, [2, 9], 5)
    counts_Km = torch.zeros(2, 9, dtype=torch.int64)
    counts_Km[0, 0] = counts_Km[1, 0] = 6  # enough for 2 codes at 3 hits each, not for 9
    assert (
        replace_below(quantizer, torch.randn(20, 5), torch.arange(20) % 2, counts_Km, threshold=3, seed=0, step=0) == 1
    )


def test_codes_that_do_not_exist_stay_zero_in_training():
    quantizer = HierarchicalQuantizer(6, SIZES, 5)
    optimizer = torch.optim.AdamW(quantizer.parameters(), lr=0.1, weight_decay=0.0)
    quantizer(torch.randn(4, 30, 5), torch.randint(0, 6, (4, 30))).losses["codebook"].backward()
    optimizer.step()
    for k, size in enumerate(SIZES):
        assert quantizer.codebook_KmD[k, size:].eq(0).all()
        assert quantizer.codebook_KmD[k, :size].ne(0).all()


def test_one_shared_codebook_is_a_plain_cosine_codebook():
    quantizer = HierarchicalQuantizer(6, 7, 5, choice="shared")
    z_BND, ids_BN = torch.randn(3, 20, 5), torch.randint(0, 6, (3, 20))
    output = quantizer(z_BND, ids_BN)
    cosines = F.cosine_similarity(z_BND[:, :, None], quantizer.codebook_KmD[0].detach(), dim=-1)
    assert torch.equal(output.ids, cosines.argmax(-1))
    assert quantizer.flatten_ids(ids_BN, output.ids).max() < 42
    assert (quantizer.codebook_KmD.shape, quantizer.codes) == ((1, 7, 5), 7)
    assert torch.equal(quantizer(z_BND, (ids_BN + 1) % 6).codes, output.codes)


def test_the_random_choice_looks_up_where_its_rule_points_to():
    quantizer = HierarchicalQuantizer(12, 3, 5, choice="random")
    z_BND, ids_BN = torch.randn(2, 12, 5), torch.randint(0, 12, (2, 12))
    output = quantizer(z_BND, ids_BN)
    for b, n in torch.cartesian_prod(torch.arange(2), torch.arange(12)).tolist():
        group = (int(ids_BN[b, n]) + int(12 * ((n * (5**0.5 - 1) / 2) % 1))) % 12
        codes_mD = quantizer.codebook_KmD[group].detach()
        best = int(F.cosine_similarity(z_BND[b, n][None], codes_mD, dim=-1).argmax())
        assert output.ids[b, n] == best
        torch.testing.assert_close(output.codes[b, n], F.normalize(codes_mD[best], dim=-1))
        assert quantizer.slots(quantizer.flatten_ids(ids_BN, output.ids))[b, n] == group * 3 + best
    joint_BN = quantizer.flatten_ids(ids_BN, output.ids)
    assert torch.equal(joint_BN, ids_BN * 3 + output.ids)
    assert torch.equal(quantizer.lookup(*quantizer.split_ids(joint_BN)), output.codes)


def test_sizes_and_controls_exclude_each_other():
    with pytest.raises(ValueError, match="need the choice 'semantic', got 'random'"):
        HierarchicalQuantizer(2, [1, 2], 4, choice="random")
