from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semhitok.quantizers.lookup import nearest_code, nearest_cosine, nearest_cosine_of_each, smallest_in_batches


def squared_distances(z_ND: Tensor, codebook_KD: Tensor) -> Tensor:
    return (z_ND.double()[:, None] - codebook_KD.double()).square().sum(-1)


def cosines(z_ND: Tensor, codebook_KD: Tensor) -> Tensor:
    z_ND, codebook_KD = z_ND.double(), codebook_KD.double()
    return (z_ND / z_ND.norm(dim=1, keepdim=True)) @ (codebook_KD / codebook_KD.norm(dim=1, keepdim=True)).T


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 70),
    size=st.integers(1, 70),
    dim=st.integers(1, 9),
    tile_n=st.integers(1, 80),
    tile_k=st.integers(1, 80),
    seed=st.integers(0, 2**16),
)
def test_equals_brute_force_in_float64(count: int, size: int, dim: int, tile_n: int, tile_k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z_ND, codebook_KD = torch.randn(count, dim, generator=generator), torch.randn(size, dim, generator=generator)
    ids_N = nearest_code(z_ND, codebook_KD, chunk=(tile_n, tile_k))
    distances_NK = squared_distances(z_ND, codebook_KD)
    assert ids_N.dtype == torch.int64
    # Equal up to fp32 rounding of near ties.
    torch.testing.assert_close(distances_NK.gather(1, ids_N[:, None])[:, 0], distances_NK.amin(1), rtol=1e-6, atol=1e-5)
    ids_N = nearest_cosine(z_ND, codebook_KD, chunk=(tile_n, tile_k))
    cosines_NK = cosines(z_ND, codebook_KD)
    torch.testing.assert_close(cosines_NK.gather(1, ids_N[:, None])[:, 0], cosines_NK.amax(1), rtol=0, atol=1e-6)


def test_same_ids_as_brute_force_over_several_default_tiles() -> None:
    z_ND, codebook_KD = torch.randn(1100, 16), torch.randn(2100, 16)
    assert torch.equal(nearest_code(z_ND, codebook_KD), squared_distances(z_ND, codebook_KD).argmin(1))
    assert torch.equal(nearest_cosine(z_ND, codebook_KD), cosines(z_ND, codebook_KD).argmax(1))


@pytest.mark.parametrize("find", [nearest_code, nearest_cosine])
def test_the_lowest_index_wins_a_tie(find) -> None:
    codebook_KD = torch.randn(4, 8).repeat(3, 1)
    for chunk in ((3, 2), (3, 12), (3, 5)):
        assert find(codebook_KD, codebook_KD, chunk=chunk).tolist() == [0, 1, 2, 3] * 3


@pytest.mark.parametrize("find", [nearest_code, nearest_cosine])
def test_an_id_does_not_depend_on_the_position_in_the_batch(find) -> None:
    # Many near ties: codes on a coarse grid, vectors half-way between them.
    codebook_KD = torch.randint(-2, 3, (300, 6)).float() + 1e-6 * torch.randn(300, 6)
    z_ND = torch.randint(-2, 3, (515, 6)).float() + 0.5
    order = torch.randperm(515)
    ids_N = find(z_ND, codebook_KD, chunk=(64, 128))
    assert torch.equal(find(z_ND[order], codebook_KD, chunk=(64, 128)), ids_N[order])


@pytest.mark.parametrize("find", [nearest_code, nearest_cosine])
def test_autocast_and_matmul_precision_change_nothing(find) -> None:
    z_ND, codebook_KD = torch.randn(500, 48), torch.randn(600, 48)
    expected = find(z_ND, codebook_KD)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(find(z_ND, codebook_KD), expected)
        assert torch.is_autocast_enabled("cpu")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(find(z_ND, codebook_KD), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_low_precision_vectors_are_compared_in_fp32() -> None:
    z_ND, codebook_KD = torch.randn(50, 8).bfloat16(), torch.randn(64, 8)
    assert torch.equal(nearest_code(z_ND, codebook_KD), squared_distances(z_ND, codebook_KD).argmin(1))


def test_no_vectors_no_ids() -> None:
    assert nearest_code(torch.empty(0, 4), torch.randn(3, 4)).shape == (0,)


@pytest.mark.parametrize("chunk", [None, (7, 5), (30, 100), (4, 40)])
@pytest.mark.parametrize("count", [1, 30])
def test_codebooks_looked_up_at_once_equal_one_after_the_other(chunk: tuple[int, int] | None, count: int) -> None:
    """What accelerators do, on the CPU; with ties, whose lowest index wins."""
    z_CND, codes_CKD = torch.randn(3, count, 4), F.normalize(torch.randn(3, 20, 4), dim=-1).repeat(1, 2, 1)
    one_by_one = torch.stack([nearest_cosine(*pair) for pair in zip(z_CND, codes_CKD, strict=True)])
    assert torch.equal(nearest_cosine_of_each(z_CND, codes_CKD), one_by_one)
    found = smallest_in_batches(z_CND, codes_CKD, torch.zeros(3, 40), -1.0, chunk=chunk)
    assert torch.equal(found, one_by_one)
    bias_CK = codes_CKD.square().sum(-1) * 2  # codes of several lengths
    nearest = smallest_in_batches(z_CND, codes_CKD * 2, bias_CK * 2, -2.0, chunk=chunk)
    assert torch.equal(nearest, torch.stack([nearest_code(*pair) for pair in zip(z_CND, codes_CKD * 2, strict=True)]))
