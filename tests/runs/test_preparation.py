"""Cached features and ids: what they hold, when they are computed, and that a stale one is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import tiny_images, tiny_model
from tests.tiny_unitok_training import save_captioned

from semhitok.data.feed import MemoryFeed, StreamFeed
from semhitok.data.sources import ImageFolder, Subset
from semhitok.data.transforms import to_float
from semhitok.recipes.recipe import DataConfig
from semhitok.runs.preparation import TrainingImages
from semhitok.tokenizers import SemHiTokModel


@pytest.fixture
def prepared(inputs: Path, tmp_path: Path) -> Callable[..., TrainingImages]:
    def prepare(first: int = 0, folder: str = "", **changes: Any) -> TrainingImages:
        source = Subset(ImageFolder(inputs / "images"), range(first, 24))
        config = DataConfig(**({"workers": 0} | changes))
        return TrainingImages(source, 32, config, tmp_path / folder, lambda line: None)

    return prepare


@pytest.fixture(scope="module")
def model() -> SemHiTokModel:
    return tiny_model()


def without_teacher(model: SemHiTokModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "teacher_features", lambda images: pytest.fail("computed again"))


def test_features_are_the_teachers_plain_and_flipped(prepared, model: SemHiTokModel, monkeypatch):
    features = prepared().features(model)["features"]
    assert (features.shape, features.dtype) == ((24, 2, 16, 16), np.float16)
    images = to_float(tiny_images(24))
    for variant, seen in enumerate((images, images.flip(-1))):
        expected = model.teacher_features(seen).numpy()
        np.testing.assert_allclose(features[:, variant], expected, rtol=1e-3, atol=1e-3)
    assert prepared(folder="plain", flip=False).features(model)["features"].shape == (24, 1, 16, 16)
    without_teacher(model, monkeypatch)
    assert np.array_equal(prepared().features(model)["features"], features)


def test_ids_are_those_of_stage_1(prepared, model: SemHiTokModel, monkeypatch: pytest.MonkeyPatch):
    ids = prepared().semantic_ids(model)["semantic_ids"]
    assert (ids.shape, ids.dtype) == ((24, 2, 16), np.int32)
    images = to_float(tiny_images(24))
    for variant, seen in enumerate((images, images.flip(-1))):
        assert np.array_equal(ids[:, variant], model.encode(seen).semantic_ids.numpy())
    # From cached features, which are halves, with hardly a difference.
    features = prepared(folder="both").features(model)["features"]
    without_teacher(model, monkeypatch)
    found = prepared(folder="both").semantic_ids(model)["semantic_ids"]
    with torch.no_grad():
        expected = model.semantic.quantize(torch.from_numpy(features.astype(np.float32)).flatten(0, 1)).ids
    assert np.array_equal(found.reshape(48, 16), expected.numpy())
    assert (found == ids).mean() > 0.99


def test_a_batch_carries_what_belongs_to_its_images(prepared, model: SemHiTokModel):
    images = prepared()
    feed = images.feed(seed=4, device=torch.device("cpu"), extras=images.semantic_ids(model))
    assert isinstance(feed, MemoryFeed)
    batch = next(feed.batches(0, 16))
    assert 0 < batch.flipped_B.sum() < 16
    assert torch.equal(batch.extras["semantic_ids"].long(), model.encode(batch.pixel_values()).semantic_ids)


def test_large_data_is_streamed_with_the_same_images_and_nothing_cached(prepared, model: SemHiTokModel, tmp_path: Path):
    in_memory, streamed = prepared(), prepared(memory_limit=24 * 3 * 32**2 - 1)
    assert streamed.features(model) == streamed.semantic_ids(model) == {}
    assert not any(tmp_path.iterdir())
    feeds = [images.feed(seed=4, device=torch.device("cpu")) for images in (in_memory, streamed)]
    assert isinstance(feeds[1], StreamFeed)
    batches = [next(feed.batches(8, 8)) for feed in feeds]
    assert torch.equal(batches[0].images_BCHW, batches[1].images_BCHW)
    assert prepared(memory_limit=24 * 3 * 32**2).loaded is not None


def test_features_beyond_the_limit_are_not_kept_but_ids_are(prepared, model: SemHiTokModel):
    exact = 2 * 24 * 2 * 16 * 16  # bytes x images x variants x tokens x channels
    assert prepared().features(model, exact - 1) == {}
    assert prepared().semantic_ids(model)
    assert prepared().features(model, exact)


def test_another_teacher_data_or_transform_has_a_cache_of_its_own(prepared, model: SemHiTokModel, tmp_path: Path):
    first = {name: getattr(prepared(), name)(model)[name].copy() for name in ("features", "semantic_ids")}
    other = tiny_model(seed=3)
    for options, changed in (({}, other), ({"first": 1}, model), ({"flip": False}, model)):
        for name in ("features", "semantic_ids"):
            found, fresh = (
                getattr(prepared(folder=folder, **options), name)(changed)[name] for folder in ("", "fresh")
            )
            assert np.array_equal(found, fresh)
            assert not np.array_equal(found, first[name])
    same_teacher = tiny_model()
    with torch.no_grad():
        same_teacher.semantic.projection.out.bias.add_(0.1)
    before = len(list(tmp_path.glob("features-*")))
    prepared().features(same_teacher)
    assert len(list(tmp_path.glob("features-*"))) == before, "the teacher is the same"


def test_a_stale_cache_under_the_right_name_is_refused_in_one_sentence(prepared, model: SemHiTokModel, tmp_path: Path):
    prepared(folder="one").features(model)
    prepared(first=1, folder="other").features(model)
    (right,), (stale,) = (list((tmp_path / name).iterdir()) for name in ("one", "other"))
    stale.replace(right)
    with pytest.raises(ValueError, match="data") as caught:
        prepared(folder="one").features(model)
    assert "\n" not in str(caught.value)


def test_captions_come_from_memory_or_from_a_part_of_the_stream(tmp_path: Path):
    folder = save_captioned(tmp_path / "captioned", without=3)

    def captions(limit: int, **changes: int) -> list[str]:
        config = DataConfig(workers=0, **changes)
        return TrainingImages(ImageFolder(folder), 32, config, tmp_path, lambda line: None).captions(limit)

    texts = [path.read_text() for path in sorted(folder.glob("*.txt"))]
    assert captions(2) == captions(24, memory_limit=0) == texts
    assert captions(2, memory_limit=0) == [texts[0], texts[-1]]
