"""The pixel task on sub-codebooks of different sizes and on the controls: each trains, and is revived where it is hit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.tiny import changed, copy_of, pixel_task, take_steps, tiny_feed, tiny_model

SIZES = [1, 2, 3, 4, 5, 6, 7, 8] * 2
VARIANTS: dict[str, dict[str, Any]] = {
    "sizes": {"subcodebook_sizes": SIZES},
    "shared": {"pixel_codebook": "shared", "subcodebook_size": 40},
    "random": {"pixel_codebook": "random"},
    "semantic only": {"concat": "semantic", "subcodebook_size": 1},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_trains_the_pixel_branch_and_nothing_else(variant: str):
    model = tiny_model(**VARIANTS[variant])
    before = copy_of(model)
    metrics = take_steps(pixel_task(model, fresh_codebook=True, adversarial_weight=0.0), tiny_feed(), 30)
    assert metrics[-1]["loss/l1"] < 0.8 * metrics[0]["loss/l1"]
    assert changed(before, model) == {name for name in before if name.startswith("pixel_")}
    if variant == "sizes":
        assert model.pixel_quantizer.codebook_KmD[~model.pixel_quantizer.layout.exists].eq(0).all()


@pytest.mark.parametrize("variant", ["sizes", "shared", "random"])
def test_codes_are_revived_in_the_sub_codebook_they_belong_to(variant: str, monkeypatch: pytest.MonkeyPatch):
    model = tiny_model(**VARIANTS[variant])
    quantizer, seen = model.pixel_quantizer, []
    dead_codes, replace_dead_codes = quantizer.dead_codes, quantizer.replace_dead_codes

    def spy_counts(counts_Km: torch.Tensor, below: float) -> torch.Tensor:
        seen.append((counts_Km, below))
        return dead_codes(counts_Km, below)

    def spy(dead_Km: torch.Tensor, z_ND: torch.Tensor, groups_N: torch.Tensor, **options: Any) -> int:
        seen[-1] = (groups_N, *seen[-1])
        return replace_dead_codes(dead_Km, z_ND, groups_N, **options)

    monkeypatch.setattr(quantizer, "dead_codes", spy_counts)
    monkeypatch.setattr(quantizer, "replace_dead_codes", spy)
    take_steps(pixel_task(model, revive_below=0.5), tiny_feed(), 6)
    for groups_N, counts_Km, below in seen:
        # The patches of the interval, by sub-codebook: those in the pool are those that were counted.
        assert torch.equal(torch.bincount(groups_N, minlength=quantizer.grouping.groups), counts_Km.sum(1))
        assert counts_Km.sum() == 3 * 8 * 16
        assert below == 0.5
        threshold, sizes = 0.5 * 3 * 8 * 16 / quantizer.codes, quantizer.counts_shape[1]
        sizes_K = torch.tensor(SIZES if variant == "sizes" else [sizes] * len(counts_Km))
        frequent_K = counts_Km.sum(1) >= threshold * sizes_K
        exists_Km = torch.arange(sizes) < sizes_K[:, None]
        assert torch.equal(dead_codes(counts_Km, below), (counts_Km < threshold) & frequent_K[:, None] & exists_Km)
    assert len(seen) == 1  # the second interval ends after revival has
