"""Variance within and between semantic codes: analysis of variance by hand, by scipy, and on a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import f_oneway
from tests.tiny import pixels, save_images, tiny_model

from semhitok.data.reading import SizedImages
from semhitok.data.sources import ImageFolder
from semhitok.evaluation.semantics.variance import GroupedVariance, code_variance


def grouped(x_ND: torch.Tensor, groups_N: torch.Tensor, groups: int) -> GroupedVariance:
    variance = GroupedVariance(groups)
    for part_ND, part_N in zip(x_ND.split(7), groups_N.split(7), strict=True):
        variance.update(part_ND, part_N)
    return variance


def test_by_hand():
    variance = grouped(torch.tensor([[1.0], [3.0], [6.0], [10.0]]), torch.tensor([0, 0, 2, 2]), 4)
    share = variance.result()
    # Means 2, 8 and 5: within (1 + 1 + 4 + 4) / 4, between (9 * 4) / 4.
    assert (share.vectors, share.groups, share.within, share.between) == (4, 2, 2.5, 9.0)
    assert share.explained == pytest.approx(9 / 11.5)
    assert share.chance == pytest.approx(1 / 3)
    # Sums of squares 2 and 8 over one degree of freedom each; the mean of both, 5, counts once more.
    assert variance.errors().tolist() == [3.5, 5.0, 6.5, 5.0]


def test_within_and_between_make_the_variance_and_agree_with_scipy():
    torch.manual_seed(0)
    x_ND, groups_N = torch.randn(200, 1) + 100, torch.randint(0, 5, (200,))
    x_ND += 0.3 * groups_N[:, None]
    share = grouped(x_ND, groups_N, 5).result()
    assert share.within + share.between == pytest.approx(float(x_ND.double().var(correction=0)), rel=1e-6)
    statistic = (share.between / 4) / (share.within / 195)
    expected = f_oneway(*(x_ND[groups_N == k, 0].double().numpy() for k in range(5))).statistic
    assert statistic == pytest.approx(expected, rel=1e-6)


def test_random_labels_explain_what_chance_says():
    torch.manual_seed(0)
    x_ND, groups_N = torch.randn(120, 3), torch.randint(0, 10, (120,)) ** 2 // 9  # of unequal sizes
    found = [grouped(x_ND, groups_N[torch.randperm(120)], 10).result() for _ in range(300)]
    mean = sum(share.explained for share in found) / 300
    assert mean == pytest.approx(found[0].chance, rel=0.05)


def test_groups_without_spread_and_vectors_without_spread():
    same = grouped(torch.ones(6, 2), torch.tensor([0, 0, 1, 1, 2, 2]), 3).result()
    assert same.explained == 0.0
    apart = grouped(torch.tensor([[0.0], [0.0], [5.0]]), torch.tensor([0, 0, 1]), 2).result()
    assert apart.explained == 1.0
    with pytest.raises(ValueError, match="at least one image"):
        GroupedVariance(3).result()


def test_on_a_model(tmp_path: Path):
    model = tiny_model()
    images = SizedImages(ImageFolder(save_images(tmp_path / "images")), 32, batch_size=10)
    found = code_variance(model, images)
    pixel_values = pixels(24)
    ids_N = model.encode(pixel_values).semantic_ids.flatten()
    with torch.no_grad():
        features_ND = F.normalize(model.pixel_features(pixel_values), dim=-1).flatten(0, 1).double()
    patches_ND = F.unfold(pixel_values, 8, stride=8).mT.flatten(0, 1).double()
    assert torch.equal(found.counts, torch.bincount(ids_N, minlength=16).double())
    for explained, x_ND in ((found.features, features_ND), (found.pixels, patches_ND)):
        within = sum(
            float((x_ND[ids_N == k] - x_ND[ids_N == k].mean(0)).square().sum()) for k in ids_N.unique().tolist()
        )
        total = float((x_ND - x_ND.mean(0)).square().sum())
        assert explained.by_code.explained == pytest.approx(1 - within / total, rel=1e-4)
        # The codebook was fitted to such images: its codes explain more than the same groups at random.
        assert explained.by_code.explained > 2 * explained.at_random.explained
        assert explained.at_random.explained == pytest.approx(explained.by_code.chance, rel=0.5)
        assert explained.at_random.groups == explained.by_code.groups == len(ids_N.unique())
    assert "raw pixels: " in found.to_markdown()
    assert f"({100 * found.pixels.by_code.chance:.1f} % expected by chance" in found.to_markdown()
