"""Experiments with UniTok: what is trained once, what is measured, and the raw error of the quantizers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.tiny_unitok_training import save_captioned, tiny_unitok_recipe

from semhitok.data.sources import ImageFolder
from semhitok.experiments import ExperimentContext, raw_error
from semhitok.experiments.raw_error import QuantizationErrorExperiment
from semhitok.experiments.unitok import UniTokExperiment
from semhitok.quantizers import MultiCodebookQuantizer, ResidualQuantizer
from semhitok.recipes.unitok_recipe import UniTokRecipe

RECONSTRUCTION = {"psnr", "ssim", "usage"}
LANGUAGE = {"zero_shot", "zero_shot_chance", "recall_at_10", "recall_at_10_chance"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> ExperimentContext:
    folder = tmp_path_factory.mktemp("unitok")
    images = save_captioned(folder / "images", 24)
    for index, path in enumerate(sorted(images.glob("*.png"))):
        scene = {
            "caption": f"a {'red' if index % 2 else 'green'} thing",
            "objects": [{"box": [0, 0, 9, 9], "category": "red" if index % 2 else "green", "concept": f"c{index % 8}"}],
        }
        path.with_suffix(".json").write_text(json.dumps(scene))
    source = ImageFolder(images)
    return ExperimentContext(
        source, source, folder, folder, "images", folder / "out", torch.device("cpu"), 24, lambda line: None, None, ()
    )


def with_losses(recipe: UniTokRecipe, **task: object) -> UniTokRecipe:
    return replace(recipe, task=replace(recipe.task, **task))


def test_what_is_measured_follows_from_what_is_trained(place: ExperimentContext):
    recipe = tiny_unitok_recipe()
    both = UniTokExperiment("both", recipe).run(place, 0)
    assert both.keys() >= RECONSTRUCTION | LANGUAGE
    assert both["zero_shot_chance"] == 0.5
    assert UniTokExperiment("both", recipe).run(place, 0) == both, "trained once, measured the same again"
    assert UniTokExperiment("both", recipe).run(place, 1)["psnr"] != both["psnr"]

    blind = UniTokExperiment("contrastive", with_losses(recipe, l1_weight=0.0, l2_weight=0.0, adversarial_weight=0.0))
    found = blind.run(place, 0)
    assert found.keys() >= LANGUAGE
    assert not found.keys() & RECONSTRUCTION

    mute = UniTokExperiment("reconstruction", with_losses(recipe, contrastive_weight=0.0)).run(place, 0)
    assert mute.keys() >= RECONSTRUCTION
    assert not mute.keys() & LANGUAGE


def test_continuous_features_are_measured_by_what_they_say(place: ExperimentContext):
    recipe = tiny_unitok_recipe()
    recipe = with_losses(recipe, l1_weight=0.0, l2_weight=0.0, adversarial_weight=0.0)
    model = recipe.model | {"quantizer": "none", "projection": "linear"}
    found = UniTokExperiment("continuous", replace(recipe, model=model)).run(place, 0)
    assert found.keys() >= LANGUAGE | {"probe_tokens", "probe_chance"}
    assert "usage" not in found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_error, "FITTED", 600)
    monkeypatch.setattr(raw_error, "TESTED", 200)


@pytest.mark.parametrize("kind", ["multi_codebook", "residual"])
def test_the_error_is_that_of_the_nearest_codes(
    place: ExperimentContext, small: None, kind, monkeypatch: pytest.MonkeyPatch
):
    fitted: list[torch.nn.Module] = []
    quantizer_class = MultiCodebookQuantizer if kind == "multi_codebook" else ResidualQuantizer
    initialise = quantizer_class.initialise

    def noted(self, z_ND, **options):
        fitted.append(self)
        initialise(self, z_ND, **options)

    monkeypatch.setattr(quantizer_class, "initialise", noted)
    experiment = QuantizationErrorExperiment(kind, "random", codes=4, codebook_size=16)
    error = experiment.run(place, 0)["error"]

    vectors = raw_error._random(0).numpy()
    seed = raw_error.derive_seed(0, "split")
    mixed = torch.randperm(800, generator=torch.Generator().manual_seed(seed)).numpy()
    chunks = vectors[mixed].reshape(800, 4, 16)
    chunks /= np.linalg.norm(chunks, axis=-1, keepdims=True)
    tested = chunks[600:]
    if kind == "multi_codebook":
        codes = fitted[0].codebooks_CKc.detach().numpy()
        codes = codes / np.linalg.norm(codes, axis=-1, keepdims=True)
        best = np.einsum("ncd,ckd->nck", tested, codes).argmax(-1)
        found = codes[np.arange(4), best].reshape(200, 64)
    else:
        codes = fitted[0].codebook_KD.detach().numpy()
        left = tested.reshape(200, 64)
        for _ in range(4):
            left = left - codes[np.square(left[:, None] - codes).sum(-1).argmin(1)]
        found = tested.reshape(200, 64) - left
    flat = tested.reshape(200, 64)
    expected = np.square(found - flat).sum(1).mean() / np.square(flat - flat.mean(0)).sum(1).mean()
    assert error == pytest.approx(expected, rel=1e-4)


def test_principal_components_are_uncorrelated_and_equal():
    mixing = torch.randn(80, 80, generator=torch.Generator().manual_seed(0))
    vectors = torch.randn(4000, 80, generator=torch.Generator().manual_seed(1)) @ mixing + 3
    found = raw_error._principal_components(vectors)
    assert found.shape == (4000, 64)
    torch.testing.assert_close(torch.cov(found.T), torch.eye(64), atol=2e-3, rtol=0)
