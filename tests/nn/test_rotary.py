"""Axial rotary positions: angles by hand, rotation by complex numbers, and what they are for: relative positions."""

from __future__ import annotations

import cmath
import math

import pytest
import torch

from semhitok.nn import apply_rotary, axial_rotary


def test_angles_of_a_grid_by_hand():
    cosine, sine = axial_rotary(3, 2, head_dim=8)
    assert cosine.shape == sine.shape == (6, 4)
    assert cosine.dtype == torch.float32
    for row in range(3):
        for column in range(2):
            # Two frequencies on each axis: 100^0 and 100^(-1/2).
            angles = [row * 1.0, row * 0.1, column * 1.0, column * 0.1]
            token = row * 2 + column
            assert cosine[token].tolist() == pytest.approx([math.cos(angle) for angle in angles], abs=1e-6)
            assert sine[token].tolist() == pytest.approx([math.sin(angle) for angle in angles], abs=1e-6)


def test_channel_pairs_turn_like_complex_numbers():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 8)
    cosine, sine = axial_rotary(2, 3, head_dim=8)
    turned = apply_rotary(x, (cosine, sine))
    assert turned.shape == x.shape
    for token in range(6):
        row, column = divmod(token, 3)
        for pair in range(4):
            angle = (row if pair < 2 else column) * 100.0 ** (-(pair % 2) / 2)
            before = complex(x[1, 2, token, pair], x[1, 2, token, pair + 4])
            after = before * cmath.exp(1j * angle)
            assert turned[1, 2, token, pair].item() == pytest.approx(after.real, abs=1e-5)
            assert turned[1, 2, token, pair + 4].item() == pytest.approx(after.imag, abs=1e-5)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_products_depend_on_the_offset_only_and_on_both_axes():
    torch.manual_seed(0)
    rows, columns = 7, 9
    query, key = torch.randn(2, 1, 1, 1, 16).expand(2, 1, 1, rows * columns, 16)
    rotary = axial_rotary(rows, columns, head_dim=16)
    queries, keys = (apply_rotary(x, rotary)[0, 0].unflatten(0, (rows, columns)) for x in (query, key))

    def product(query_at: tuple[int, int], key_at: tuple[int, int]) -> float:
        return float(queries[query_at] @ keys[key_at])

    here = product((1, 2), (3, 1))
    for down, right in [(0, 1), (1, 0), (3, 6), (2, 5)]:
        assert product((1 + down, 2 + right), (3 + down, 1 + right)) == pytest.approx(here, abs=1e-4)
    others = [product((1, 2), (4, 1)), product((1, 2), (3, 2)), product((3, 1), (1, 2))]
    assert min(abs(other - here) for other in others) > 1e-2


def test_tokens_near_in_a_small_grid_have_the_same_positions_in_a_large_one():
    small, large = axial_rotary(2, 3, 8), axial_rotary(5, 7, 8)
    for one, other in zip(small, large, strict=True):
        assert torch.equal(one.unflatten(0, (2, 3)), other.unflatten(0, (5, 7))[:2, :3])


def test_keeps_the_dtype_and_refuses_head_dimensions_that_do_not_divide():
    x = torch.randn(1, 1, 4, 8, dtype=torch.bfloat16)
    assert apply_rotary(x, axial_rotary(2, 2, 8)).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        axial_rotary(2, 2, 6)
