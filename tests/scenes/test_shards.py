"""Shards: read back by the project's own tar source and by webdataset; the same bytes for any number of workers."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semhitok.data.sources import TarShards
from semhitok.scenes.compose import compose
from semhitok.scenes.questions import questions
from semhitok.scenes.shards import SceneRecipe, encode_image, write_shards
from semhitok.scenes.splits import Material
from semhitok.types import SceneFormat

RECIPE = SceneRecipe("train", 10, (48, 64), seed=3, image_format="png", per_shard=4)


@pytest.fixture(scope="module")
def written(everything: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "train"
    write_shards(folder, RECIPE, everything)
    return folder


def test_reads_back(written: Path, everything: Material) -> None:
    source = TarShards(written)
    assert len(source) == 10
    scenes = [compose(3, index, 48, 64, everything) for index in range(10)]
    for index, scene in enumerate(scenes):
        sample = source.load(index)
        assert np.array_equal(np.asarray(sample.image), scene.image)
        assert sample.metadata["caption"] == scene.caption
        assert [tuple(item["box"]) for item in sample.metadata["objects"]] == [item.box for item in scene.objects]
        assert {"name", "concept", "category", "style"} < set(sample.metadata["objects"][0]) if scene.objects else True
    asked = questions(scenes[:4], 3)
    assert [q["answer"] for q in source.load(1).metadata["qa"]] == [question.answer for question in asked[1]]


def test_webdataset_reads_it(written: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    shards = [str(path) for path in sorted(written.glob("*.tar"))]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    assert len(samples) == 10
    assert samples[0]["png"].shape == (48, 64, 3)
    assert samples[0]["json"]["caption"]


def test_bytes_do_not_depend_on_the_workers(written: Path, everything: Material, tmp_path: Path) -> None:
    write_shards(tmp_path / "again", RECIPE, everything, workers=2)
    for path in written.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_progress_reaches_the_total(everything: Material, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_shards(tmp_path / "x", RECIPE, everything, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_sources_are_recorded(written: Path, everything: Material) -> None:
    described = json.loads((written / "dataset.json").read_text())
    assert described["recipe"]["count"] == 10
    assert described["concepts"]["owl"] == "animal"
    entries = [*everything.cutouts.entries, *everything.photographs.entries]
    assert sum(row["pictures"] for row in described["sources"].values()) == len(entries)
    assert described["sources"]["package-emoji (CC0-1.0)"]["authors"] == ["Somebody"]


def test_a_used_folder_is_refused(written: Path, everything: Material) -> None:
    with pytest.raises(ValueError, match="not empty"):
        write_shards(written, RECIPE, everything)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"count": 0}, "count"), ({"size": (8, 64)}, "size"), ({"bare_share": 1.5}, "bare_share"),
     ({"object_counts": (5,)}, "object_counts"), ({"per_shard": 0}, "per_shard")],
)  # fmt: skip
def test_wrong_recipes_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SceneRecipe(**{"split": "train", "count": 1, **wrong})  # pyright: ignore


@pytest.mark.parametrize(("image_format", "decibels"), [("webp", np.inf), ("png", np.inf), ("jpg", 35.0)])
def test_formats_keep_the_picture(everything: Material, image_format: SceneFormat, decibels: float) -> None:
    for index in range(3):
        exact = compose(0, index, 64, 64, everything).image
        with Image.open(io.BytesIO(encode_image(exact, image_format))) as image:
            error = np.mean((np.asarray(image.convert("RGB")).astype(float) - exact) ** 2)
        assert (10 * np.log10(255**2 / error) if error else np.inf) >= decibels
