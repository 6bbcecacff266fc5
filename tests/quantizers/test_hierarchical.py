from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.quantizers.replacement import replace_below
from torch import Tensor

from semhitok.quantizers import HierarchicalQuantizer
from semhitok.quantizers.grouped import members, nearest_in_group


def brute_force(z_BND: Tensor, semantic_ids_BN: Tensor, codebook_KmD: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines with the whole flat table, everything but the own semantic code masked: best joint id, and cosines."""
    groups, size, _ = codebook_KmD.shape
    table = codebook_KmD.detach().double().flatten(0, 1)
    cosines = F.cosine_similarity(z_BND.detach().double()[:, :, None], table, dim=-1)
    own = torch.arange(groups * size) // size == semantic_ids_BN[..., None]
    cosines = cosines.masked_fill(~own, -torch.inf)
    return cosines.argmax(-1), cosines


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    tokens=st.integers(1, 12),
    groups=st.integers(1, 10),
    size=st.integers(1, 9),
    dim=st.integers(2, 8),
)
def test_lookup_equals_masked_brute_force(batch: int, tokens: int, groups: int, size: int, dim: int) -> None:
    quantizer = HierarchicalQuantizer(groups, size, dim)
    z_BND = 4 * torch.randn(batch, tokens, dim, requires_grad=True)
    semantic_ids_BN = torch.randint(0, groups, (batch, tokens))
    output = quantizer(z_BND, semantic_ids_BN)
    joint_BN = quantizer.flatten_ids(semantic_ids_BN, output.ids)
    _, cosines = brute_force(z_BND, semantic_ids_BN, quantizer.codebook_KmD)
    torch.testing.assert_close(cosines.gather(2, joint_BN[..., None])[..., 0], cosines.amax(2), rtol=0, atol=1e-6)
    assert 0 <= output.ids.min() <= output.ids.max() < size
    semantic, inner = quantizer.split_ids(joint_BN)
    assert torch.equal(semantic, semantic_ids_BN)
    assert torch.equal(inner, output.ids)
    assert torch.equal(output.codes, quantizer.lookup(semantic, inner))
    expected = F.normalize(quantizer.codebook_KmD.flatten(0, 1)[joint_BN], dim=-1)
    torch.testing.assert_close(output.codes, expected)
    error = F.normalize(z_BND, dim=-1) - expected
    for name in ("codebook", "commitment"):
        torch.testing.assert_close(output.losses[name], error.square().mean())


def test_same_ids_as_brute_force_over_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semhitok.quantizers.grouped.LOOKUP_CHUNK", 7)
    quantizer = HierarchicalQuantizer(6, 5, 16)
    z_BND, semantic_ids_BN = torch.randn(3, 11, 16), torch.randint(0, 6, (3, 11))
    ids_BN = quantizer(z_BND, semantic_ids_BN).ids
    expected, _ = brute_force(z_BND, semantic_ids_BN, quantizer.codebook_KmD)
    assert torch.equal(quantizer.flatten_ids(semantic_ids_BN, ids_BN), expected)


def test_gradients() -> None:
    quantizer = HierarchicalQuantizer(5, 3, 4)
    z_BND = (3 * torch.randn(2, 6, 4)).requires_grad_()
    semantic_ids_BN = torch.randint(0, 4, (2, 6))
    output = quantizer(z_BND, semantic_ids_BN)
    weights = torch.randn(2, 6, 4)
    (gradient,) = torch.autograd.grad((output.codes * weights).sum(), z_BND, retain_graph=True)
    (expected,) = torch.autograd.grad((F.normalize(z_BND, dim=-1) * weights).sum(), z_BND, retain_graph=True)
    torch.testing.assert_close(gradient, expected)
    assert (
        torch.autograd.grad(output.losses["commitment"], quantizer.codebook_KmD, allow_unused=True, retain_graph=True)[
            0
        ]
        is None
    )
    (gradient,) = torch.autograd.grad(output.losses["codebook"], quantizer.codebook_KmD)
    touched = gradient.abs().sum(-1) > 0
    chosen = torch.zeros(5, 3, dtype=torch.bool)
    chosen[semantic_ids_BN, output.ids] = True
    assert torch.equal(touched, chosen)


def test_autocast_and_low_precision() -> None:
    quantizer = HierarchicalQuantizer(5, 4, 8)
    z_BND, semantic_ids_BN = torch.randn(2, 30, 8), torch.randint(0, 5, (2, 30))
    expected = quantizer(z_BND, semantic_ids_BN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = quantizer(z_BND, semantic_ids_BN)
    assert torch.equal(found.ids, expected.ids)
    assert torch.equal(found.codes, expected.codes)
    for name, loss in expected.losses.items():
        assert torch.equal(found.losses[name], loss)
    assert quantizer(z_BND.bfloat16(), semantic_ids_BN).codes.dtype == torch.bfloat16


def test_members_in_order_of_priority() -> None:
    groups_N = torch.tensor([1, 0, 1, 1, 3])
    order_N = torch.tensor([4, 3, 2, 1, 0])
    assert members(groups_N, order_N, 4, 2).tolist() == [[1, -1], [3, 2], [-1, -1], [4, -1]]


def test_initialise_is_a_spherical_k_means_in_every_semantic_code() -> None:
    torch.manual_seed(0)
    z_ND, semantic_ids_N = torch.randn(400, 8), torch.randint(0, 6, (400,))
    unit_ND = F.normalize(z_ND, dim=-1)
    books = []
    for iterations in (0, 5):
        quantizer = HierarchicalQuantizer(6, 3, 8)
        quantizer.initialise(z_ND, semantic_ids_N, seed=0, iterations=iterations)
        books.append(quantizer.codebook_KmD.detach().clone())
    for k in range(6):
        own_ND, expected_mD = unit_ND[semantic_ids_N == k], books[0][k]
        # The start: three different patches of this semantic code.
        assert ((expected_mD @ own_ND.T) > 1 - 1e-6).any(0).sum() == 3
        for _ in range(5):
            ids_N = (own_ND @ expected_mD.T).argmax(1)
            expected_mD = torch.stack([F.normalize(own_ND[ids_N == j].sum(0), dim=0) for j in range(3)])
        torch.testing.assert_close(books[1][k], expected_mD, rtol=1e-5, atol=1e-5)


def test_initialise_moves_an_empty_subcode_to_the_worst_patch() -> None:
    # Nine equal patches take all starting places with high odds; the odd one must still get its sub-code.
    z_ND = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(9, 1), torch.tensor([[0.0, 1.0]])])
    for seed in range(5):
        quantizer = HierarchicalQuantizer(1, 2, 2)
        quantizer.initialise(z_ND, torch.zeros(10, dtype=torch.int64), seed=seed, iterations=3)
        assert sorted(quantizer.codebook_KmD[0].tolist()) == [[0.0, 1.0], [1.0, 0.0]]


def test_initialise_of_rare_and_absent_semantic_codes() -> None:
    z_ND = F.normalize(torch.randn(8, 5), dim=-1)
    semantic_ids_N = torch.tensor([0, 0, 0, 0, 0, 0, 2, 2])
    quantizer = HierarchicalQuantizer(4, 4, 5)
    quantizer.initialise(z_ND, semantic_ids_N, seed=0)
    codebook_KmD = quantizer.codebook_KmD.detach()
    torch.testing.assert_close(codebook_KmD.norm(dim=-1), torch.ones(4, 4))
    # Two patches, four sub-codes: both are represented exactly, the rest are close to one of them but not equal.
    cosines_mN = codebook_KmD[2] @ z_ND[6:].T
    torch.testing.assert_close(cosines_mN.amax(0), torch.ones(2))
    assert cosines_mN.amax(1).min() > 0.95
    assert len(codebook_KmD[2].unique(dim=0)) == 4
    # No patches: copies from anywhere in the batch.
    assert (codebook_KmD[[1, 3]].flatten(0, 1) @ z_ND.T).amax(1).min() > 0.95
    assert len(codebook_KmD[[1, 3]].flatten(0, 1).unique(dim=0)) == 8
    with pytest.raises(ValueError, match="no vectors"):
        quantizer.initialise(z_ND[:0], semantic_ids_N[:0], seed=0)


def test_one_subcode_per_semantic_code() -> None:
    quantizer = HierarchicalQuantizer(3, 1, 4)
    z_ND, semantic_ids_N = torch.randn(30, 4), torch.arange(30) % 3
    quantizer.initialise(z_ND, semantic_ids_N, seed=0)
    expected = torch.stack([F.normalize(F.normalize(z_ND[k::3], dim=-1).mean(0), dim=0) for k in range(3)])
    torch.testing.assert_close(quantizer.codebook_KmD[:, 0].detach(), expected)
    assert quantizer(z_ND[None], semantic_ids_N[None]).ids.eq(0).all()


def test_replacement_draws_from_the_same_semantic_code() -> None:
    torch.manual_seed(0)
    quantizer = HierarchicalQuantizer(4, 3, 5)
    z_ND, semantic_ids_N = torch.randn(40, 5), torch.arange(40) % 2  # semantic codes 2 and 3 have no patches here
    before = quantizer.codebook_KmD.detach().clone()
    counts_Km = torch.tensor([[9, 0, 0], [5, 5, 0], [9, 0, 9], [1, 0, 0]])
    assert replace_below(quantizer, z_ND, semantic_ids_N, counts_Km, threshold=1, seed=0, step=4) == 3
    after = quantizer.codebook_KmD.detach()
    changed = (after != before).any(-1)
    assert changed.tolist() == [[False, True, True], [False, False, True], [False] * 3, [False] * 3]
    unit_ND = F.normalize(z_ND, dim=-1)
    for k, j in changed.nonzero().tolist():
        cosines_N = unit_ND @ after[k, j]
        assert cosines_N.max() > 1 - 1e-6
        assert semantic_ids_N[cosines_N.argmax()] == k
    assert not torch.equal(after[0, 1], after[0, 2])


def test_replacement_leaves_semantic_codes_that_are_too_rare_to_judge() -> None:
    quantizer = HierarchicalQuantizer(2, 4, 5)
    before = quantizer.codebook_KmD.detach().clone()
    counts_Km = torch.tensor([[7, 0, 0, 0], [8, 0, 0, 0]])
    revived = replace_below(quantizer, torch.randn(20, 5), torch.arange(20) % 2, counts_Km, threshold=2, seed=0, step=0)
    assert revived == 3
    assert torch.equal(quantizer.codebook_KmD[0], before[0])


def test_replacement_is_limited_by_the_patches_and_keyed_by_the_step() -> None:
    books = []
    for step in (1, 1, 2):
        torch.manual_seed(0)
        quantizer = HierarchicalQuantizer(1, 6, 5)
        z_ND, counts_Km = torch.randn(3, 5), torch.tensor([[9, 0, 0, 0, 0, 0]])
        assert (
            replace_below(quantizer, z_ND, torch.zeros(3, dtype=torch.int64), counts_Km, threshold=1, seed=0, step=step)
            == 3
        )
        books.append(quantizer.codebook_KmD.detach().clone())
    assert torch.equal(books[0], books[1])
    assert not torch.equal(books[0], books[2])


def test_lookup_ignores_the_length_of_codes() -> None:
    codebook_KmD = torch.tensor([[[100.0, 0.0], [0.0, 0.01]]])
    z_ND = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    assert nearest_in_group(z_ND, codebook_KmD, torch.zeros(2, dtype=torch.int64)).tolist() == [1, 0]


def test_a_zero_code_is_no_nan() -> None:
    codebook_KmD = torch.tensor([[[0.0, 0.0], [-1.0, 0.1], [1.0, 0.1]]])
    assert nearest_in_group(torch.tensor([[1.0, 0.0]]), codebook_KmD, torch.zeros(1, dtype=torch.int64)).item() == 2
