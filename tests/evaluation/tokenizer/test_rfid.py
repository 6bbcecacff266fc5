"""rFID on one and on several processes, with a network of mean colours in place of Inception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from tests.tiny import save_images, tiny_model
from torch.multiprocessing.spawn import start_processes

from semhitok import distributed
from semhitok.data.sources import ImageFolder
from semhitok.evaluation.tokenizer.rfid import adm_crop, measure_rfid
from semhitok.metrics.frechet import FeatureExtractor, FeatureStatistics, frechet_distance

WORLD, BATCH = 2, 4
EXTRACTOR = FeatureExtractor("rFID", "means of quarters", lambda x: torch.nn.functional.avg_pool2d(x, 16).flatten(1))


OPTIONS: dict[str, Any] = {"batch_size": BATCH, "max_bad_share": 0.2}


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    model = tiny_model()  # fitted to data, which would be a collective
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=WORLD)
    source = ImageFolder(folder / "images")
    settings: tuple[dict[str, Any], ...] = (
        {"cache": folder / "two"},
        {"cache": folder / "two"},
        {"limit": 3},
    )  # nothing for the second rank
    found = [measure_rfid(model, source, EXTRACTOR, **OPTIONS, **each) for each in settings]
    (folder / f"{rank}.json").write_text(json.dumps([[each.distance, each.images, each.reference] for each in found]))
    distributed.destroy_distributed()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rfid")
    save_images(folder / "images")
    for number in range(BATCH, 2 * BATCH):  # a batch of which nothing can be read
        path = folder / "images" / f"{number:03d}.png"
        path.write_bytes(path.read_bytes()[:40])
    start_processes(work, args=(folder,), nprocs=WORLD, start_method="forkserver")
    return folder


def test_the_figure_does_not_depend_on_the_number_of_processes(folder: Path, tmp_path: Path):
    model, source = tiny_model(), ImageFolder(folder / "images")
    settings: tuple[dict[str, Any], ...] = ({"cache": tmp_path}, {"cache": tmp_path}, {"limit": 3})
    found = [measure_rfid(model, source, EXTRACTOR, **OPTIONS, **each) for each in settings]
    expected = [[each.distance, each.images, each.reference] for each in found]
    assert [each[1:] for each in expected] == [[20, "computed"], [20, "cached"], [3, "computed"]]
    assert found[0].bad == BATCH
    assert "on 20 images of 32 px, 4 unreadable ones left out (means of quarters; crop: shorter" in found[0].sentence()
    for rank in range(WORLD):
        assert json.loads((folder / f"{rank}.json").read_text()) == expected
    with pytest.raises(ValueError, match="4 of 24 images are bad, more than the accepted share of 5%"):
        measure_rfid(model, source, EXTRACTOR)


def test_the_figure_is_the_distance_between_crops_and_their_reconstructions(folder: Path):
    model, statistics = tiny_model(), [FeatureStatistics(), FeatureStatistics()]
    paths = [path for path in sorted((folder / "images").iterdir()) if path.stat().st_size > 40]
    pixels = [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 127.5 - 1 for path in paths]
    images = torch.stack(pixels)
    with torch.no_grad():
        encoded = model.encode(images)
        for entry, found in zip(statistics, (images, model.decode(encoded.ids, encoded.grid)), strict=True):
            entry.update(EXTRACTOR.extract(found))
    expected = frechet_distance(*[value for entry in statistics for value in (entry.mean_D, entry.covariance)])
    found = measure_rfid(model, ImageFolder(folder / "images"), EXTRACTOR, max_bad_share=0.2)
    assert found.distance == pytest.approx(expected, rel=1e-3)


def test_the_crop_of_adm():
    pixels = np.arange(16 * 20, dtype=np.uint8).reshape(16, 20)
    image = Image.fromarray(np.stack([pixels] * 3, axis=-1))
    # 20 x 16 is halved twice to 5 x 4; of five columns the first four stay.
    halved = pixels.astype(float)
    for _ in range(2):
        halved = np.floor(halved.reshape(halved.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3)) + 0.5)
    np.testing.assert_array_equal(np.asarray(adm_crop(image, 4))[..., 0], halved[:, :4])
    assert adm_crop(image, 12).size == (12, 12)
    assert adm_crop(Image.new("RGB", (40, 90)), 32).size == (32, 32)
