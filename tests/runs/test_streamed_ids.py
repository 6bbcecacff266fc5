"""Stage-1 ids of streamed images: computed once, in files, by any number of ranks, and used like those of images in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import tiny_model

from semhitok import distributed
from semhitok.data.images import ImageError
from semhitok.data.sources import ImageFolder, Subset
from semhitok.recipes.recipe import DataConfig
from semhitok.runs.preparation import TrainingImages
from semhitok.storage import array_shards
from semhitok.tokenizers import SemHiTokModel


class WithBad:
    """Images of which some cannot be read for now."""

    def __init__(self, source: Any, bad: set[int]) -> None:
        self.source, self.bad, self.fingerprint = source, bad, source.fingerprint

    def __len__(self) -> int:
        return len(self.source)

    def key(self, index: int) -> str:
        return self.source.key(index)

    def load(self, index: int) -> Any:
        if index in self.bad:
            raise ImageError(f"{self.key(index)}: truncated")
        return self.source.load(index)


@pytest.fixture
def model() -> SemHiTokModel:
    return tiny_model()


def streamed(inputs: Path, cache: Path, bad: set[int] | None = None, **changes: Any) -> TrainingImages:
    source = WithBad(Subset(ImageFolder(inputs / "images"), range(24)), bad or set())
    config = DataConfig(**({"workers": 0, "memory_limit": 0} | changes))
    return TrainingImages(source, 32, config, cache, lambda line: None)  # pyright: ignore[reportArgumentType]


def test_a_stream_has_the_ids_of_images_in_memory(inputs: Path, tmp_path: Path, model: SemHiTokModel, monkeypatch):
    monkeypatch.setattr(array_shards, "SHARD_ROWS", 10)
    expected = streamed(inputs, tmp_path / "memory", memory_limit=2**30).semantic_ids(model)["semantic_ids"]
    images = streamed(inputs, tmp_path)
    ids = images.semantic_ids(model, samples=49)["semantic_ids"]
    assert (ids.shape, ids.ndim, ids.dtype) == ((24, 2, 16), 3, np.int16)
    indices, variants = np.arange(48) % 24, np.arange(48) // 24
    assert np.array_equal(ids[indices, variants], expected[indices, variants])
    # In a batch they belong to their images, flipped or not; nothing is computed again.
    monkeypatch.setattr(model, "teacher_features", lambda images: pytest.fail("computed again"))
    again = streamed(inputs, tmp_path)
    feed = again.feed(seed=4, device=torch.device("cpu"), extras=again.semantic_ids(model, samples=49))
    batch = next(feed.batches(0, 16))
    assert 0 < batch.flipped_B.sum() < 16
    monkeypatch.undo()
    assert torch.equal(batch.extras["semantic_ids"].long(), model.encode(batch.pixel_values()).semantic_ids)


def test_each_rank_computes_its_files_and_a_later_run_what_is_missing(
    inputs: Path, tmp_path: Path, model: SemHiTokModel, monkeypatch
):
    monkeypatch.setattr(array_shards, "SHARD_ROWS", 10)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    for rank, files in ((1, ["000001"]), (0, ["000000", "000001", "000002"])):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        with pytest.raises(ValueError, match="no finished cache") if rank else monkeypatch.context():
            streamed(inputs, tmp_path).semantic_ids(
                model, samples=49
            )  # rank 1 does not wait, as there are no processes
        assert sorted(path.stem for path in tmp_path.glob("*/*.cache")) == files
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    (lost,) = tmp_path.glob("*/000002.cache")
    content = lost.read_bytes()
    lost.unlink()
    streamed(inputs, tmp_path).semantic_ids(model, samples=49)
    assert lost.read_bytes() == content


def test_nothing_is_kept_for_a_stage_that_sees_no_image_twice(inputs: Path, tmp_path: Path, model: SemHiTokModel):
    images = streamed(inputs, tmp_path)
    assert images.semantic_ids(model) == images.semantic_ids(model, samples=48) == {}
    exact = 2 * 24 * 2 * 16  # bytes x images x variants x tokens
    assert images.semantic_ids(model, samples=49, limit=exact - 1) == {}
    assert not any(tmp_path.iterdir())
    assert images.semantic_ids(model, samples=49, limit=exact)


def test_an_image_without_ids_is_replaced_as_long_as_it_cannot_be_read(
    inputs: Path, tmp_path: Path, model: SemHiTokModel
):
    images = streamed(inputs, tmp_path, {3}, max_bad_share=0.3)
    ids = images.semantic_ids(model, samples=49)
    batch = next(images.feed(seed=4, device=torch.device("cpu"), extras=ids).batches(0, 24))
    assert 3 not in batch.indices_B
    repaired = streamed(inputs, tmp_path, max_bad_share=0.3)
    ids = repaired.semantic_ids(model, samples=49)
    with pytest.raises(ValueError, match=r"image 3 could not be read .* delete .*000000\.cache to have them computed"):
        next(repaired.feed(seed=4, device=torch.device("cpu"), extras=ids).batches(0, 24))
    with pytest.raises(ValueError, match="too many images cannot be read"):
        streamed(inputs, tmp_path / "other", set(range(20)), max_bad_share=0.01).semantic_ids(model, samples=49)
