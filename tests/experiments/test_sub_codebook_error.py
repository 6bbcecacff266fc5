"""What sub-codebooks are worth to a patch on its own: hand-computed errors, and a run on tiny images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import save_images, save_teacher, tiny_recipe

from semhitok.data.sources import ImageFolder
from semhitok.experiments import ExperimentContext
from semhitok.experiments.semhitok import SemHiTokExperiment
from semhitok.experiments.sub_codebook_error import (
    SubCodebookErrorExperiment,
    group_means,
    pixel_code_error,
)


def test_each_group_has_its_own_centres():
    fitted = torch.tensor([0.0, 0.2, 10.0, 10.2, 5.0, 5.4, 7.0, 7.4])[:, None]
    groups = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    # Centres 0.1 and 10.1 of group 0, 5.2 and 7.2 of group 1; nothing was fitted for group 2.
    tested = torch.tensor([0.3, 10.1, 5.2, 7.0, 3.0])[:, None]
    own = torch.tensor([0, 0, 1, 1, 2])
    error = pixel_code_error(fitted, groups, tested, own, m=2, seed=0)
    assert error.item() == pytest.approx((0.2**2 + 0 + 0 + 0.2**2 + 3.0**2) / 5, abs=1e-5)
    one = pixel_code_error(fitted, torch.zeros_like(groups), tested, torch.zeros_like(own), m=1, seed=0)
    assert one.item() == pytest.approx(np.mean((tested.numpy() - fitted.numpy().mean()) ** 2), abs=1e-4)


def test_a_group_without_vectors_has_the_mean_of_all():
    means = group_means(torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 10.0]]), torch.tensor([2, 2, 0]), 3)
    assert torch.allclose(means, torch.tensor([[5.0, 10.0], [3.0, 4.0], [2.0, 1.0]]))


def test_rules_share_a_stage_1_and_pixel_codes_lower_the_error(tmp_path: Path):
    source = ImageFolder(save_images(tmp_path / "images"))
    place = ExperimentContext(
        source, source, tmp_path, tmp_path, "images", tmp_path / "out", torch.device("cpu"), 12, print, None, ()
    )
    stage_1 = SemHiTokExperiment("stage-1", tiny_recipe(save_teacher(tmp_path / "teacher")), stages=("semantic",))
    found = {kind: SubCodebookErrorExperiment(kind, stage_1).run(place, 0) for kind in ("semantic", "shared", "random")}
    assert len({figures["semantic_error"] for figures in found.values()}) == 1
    assert len({figures["error"] for figures in found.values()}) == 3
    for figures in found.values():
        assert 0 < figures["error"] < figures["semantic_error"] < 1
    assert len(list(place.runs.iterdir())) == 1
