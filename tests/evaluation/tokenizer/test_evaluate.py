import json

import numpy as np
import pytest
import torch
from PIL import Image
from tests.evaluation.dummy import LEVELS, SUBLEVELS, GreyTokenizer, write_scenes

from semhitok.data.reading import SizedImages, evenly_spaced
from semhitok.data.sources import ImageFolder
from semhitok.evaluation import evaluate
from semhitok.evaluation.semantics.labels import label_of
from semhitok.metrics.frechet import FeatureExtractor
from semhitok.metrics.reconstruction import psnr_per_image
from semhitok.tokenizers.protocol import ImageTokenizer


@pytest.fixture
def scenes(tmp_path):
    return ImageFolder(write_scenes(tmp_path / "scenes", 12, seed=0))


def pixels(source):
    images = np.stack([np.array(source.load(index).image) for index in range(len(source))])
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_the_dummy_follows_the_protocol():
    assert isinstance(GreyTokenizer(), ImageTokenizer)


def test_figures_are_those_of_the_images(scenes):
    model, images = GreyTokenizer(), pixels(scenes)
    report = evaluate(model, {"scenes": scenes}, batch_size=5, rate_images=0, name="grey")
    group = report.groups["scenes"]
    ids = model.encode(images).ids
    assert ids is not None
    assert group.reconstruction.psnr == pytest.approx(psnr_per_image(images, model.decode(ids)).mean().item(), abs=1e-4)
    assert (group.reconstruction.images, group.images_in_source) == (12, 12)
    assert group.codebooks.joint.tokens == ids.numel()
    assert group.codebooks.joint.usage == pytest.approx(len(ids.unique()) / (LEVELS * SUBLEVELS))
    assert report.bits == 16 * 5
    assert (group.rate, group.probe, group.reconstruction_native) == ({}, {}, None)
    assert group.fingerprint == scenes.fingerprint


def test_the_figures_do_not_depend_on_the_batch_size(scenes):
    one, two = (evaluate(GreyTokenizer(), {"scenes": scenes}, batch_size=size) for size in (1, 12))
    assert one.groups["scenes"].codebooks == two.groups["scenes"].codebooks
    assert one.groups["scenes"].reconstruction.psnr == pytest.approx(two.groups["scenes"].reconstruction.psnr)


def test_groups_are_reported_apart_and_probed_across_sources(scenes, tmp_path):
    train = ImageFolder(write_scenes(tmp_path / "train", 40, seed=1))
    dark = tmp_path / "photographs"
    dark.mkdir()
    for index in range(3):
        Image.fromarray(np.full((40, 24, 3), 10 * index, np.uint8)).save(dark / f"{index}.png")
    report = evaluate(GreyTokenizer(), {"photographs": ImageFolder(dark), "scenes": scenes}, probe_train=train)
    assert list(report.groups) == ["photographs", "scenes"]
    assert report.groups["photographs"].probe == {}  # no labels
    semantic = report.groups["scenes"].probe["semantic"]
    assert (semantic.accuracy, semantic.train_images, semantic.test_images) == (1.0, 40, 12)
    assert set(semantic.per_class) == {"day", "night"}
    assert "pixel" in report.groups["scenes"].probe
    assert report.groups["photographs"].codebooks.semantic is not None
    assert report.groups["photographs"].codebooks.semantic.usage == 1 / LEVELS


def test_bad_images_are_left_out_counted_and_an_error_beyond_the_share(scenes, tmp_path):
    (tmp_path / "scenes" / "005.png").write_bytes(b"")
    source = ImageFolder(tmp_path / "scenes")
    report = evaluate(GreyTokenizer(), {"scenes": source}, max_bad_share=0.1)
    group = report.groups["scenes"]
    assert [bad.key for bad in group.bad] == ["005.png"]
    assert "005.png" in group.bad[0].reason
    assert group.reconstruction.images == 11
    assert "| unreadable images left out | 1 |" in report.to_markdown()
    with pytest.raises(ValueError, match=r"1 of 12 images are bad.*005\.png"):
        evaluate(GreyTokenizer(), {"scenes": source}, max_bad_share=0.05)


def test_a_tokenizer_that_predicts_another_size_is_measured_at_both(scenes):
    # 15 pixels: 3 x 3 tokens of 4 pixels, 12 predicted; measured at 15 after resampling and at 12.
    report = evaluate(GreyTokenizer(image_size=15, predicted_size=12), {"scenes": scenes})
    group = report.groups["scenes"]
    assert (group.reconstruction.height, group.reconstruction.width) == (15, 15)
    assert group.reconstruction_native is not None
    assert (group.reconstruction_native.height, group.reconstruction_native.images) == (12, 12)
    assert "at the predicted size" in report.to_markdown()


def test_an_earlier_stage_is_compared(scenes):
    report = evaluate(GreyTokenizer(), {"scenes": scenes}, before=GreyTokenizer())
    assert report.stage_conflict is not None
    assert report.stage_conflict.identical
    assert report.stage_conflict.images == 12
    assert "bit-identical" in report.to_markdown()


def test_report_files(scenes, tmp_path):
    report = evaluate(GreyTokenizer(), {"scenes (held out)": scenes}, rate_images=2, example_images=4, name="grey")
    paths = report.save(tmp_path / "out")
    assert set(paths) == {"json", "markdown", "picture", "rate scenes (held out)"}
    assert all(path.exists() for path in paths.values())
    content = json.loads(paths["json"].read_text())
    group = content["groups"]["scenes (held out)"]
    assert group["reconstruction"]["psnr"] == report.groups["scenes (held out)"].reconstruction.psnr
    assert group["rate"]["tokenizer"][0]["bits"] == 80
    assert group["rate_images"] == 2
    markdown = paths["markdown"].read_text()
    assert "data range 1.0" in markdown
    assert "| PSNR (dB) |" in markdown
    examples = report.groups["scenes (held out)"].examples
    assert examples is not None
    assert examples.originals.shape == (4, 3, 16, 16)


def test_frechet_distances_need_enough_images(scenes, tmp_path):
    extractor = FeatureExtractor("Fréchet distance (mean colour)", "mean of each channel", lambda x: x.mean((2, 3)))
    few = evaluate(GreyTokenizer(), {"scenes": scenes}, extractors=[extractor])
    assert few.groups["scenes"].frechet == []
    many = ImageFolder(write_scenes(tmp_path / "many", 100, seed=1))
    enough = evaluate(GreyTokenizer(), {"many": many}, extractors=[extractor], rate_images=0)
    (score,) = enough.groups["many"].frechet
    assert score.images == 100
    assert "mean colour): mean of each channel" in enough.to_markdown()


def test_the_rate_table_sets_each_method_against_the_tokenizer(scenes):
    markdown = evaluate(GreyTokenizer(), {"scenes": scenes}, rate_images=4).to_markdown()
    rows = [line for line in markdown.splitlines() if "bits, " in line]
    assert [row.split(" | ")[1] for row in rows] == ["tokenizer", "WebP", "JPEG", "bicubic down-sampling"]
    assert "72 bits" in rows[-1]  # three pixels of 24 bits: the most that fits into the tokenizer's 80


def test_progress_and_limit(scenes):
    seen = []
    report = evaluate(
        GreyTokenizer(), {"scenes": scenes}, limit=5, batch_size=2, progress=lambda *entry: seen.append(entry)
    )
    assert report.groups["scenes"].reconstruction.images == 5
    assert seen == [("scenes", 2, 5), ("scenes", 4, 5), ("scenes", 5, 5)]


def test_the_limit_is_spread_over_the_source(scenes):
    assert evenly_spaced(12, 5) == [0, 3, 6, 8, 11]
    assert evenly_spaced(3, 5) == [0, 1, 2]
    assert evenly_spaced(3, 0) == []
    assert len(set(evenly_spaced(1000, 999))) == 999
    images = SizedImages(scenes, 16, limit=5)
    positions = [position for batch in images for position in batch.positions]
    assert positions == [0, 1, 2, 3, 4]


def test_labels():
    scene = {"objects": [{"concept": "a", "category": "x", "box": [0, 0, 2, 2]}]}
    assert label_of(scene) == ("x", "a")
    assert label_of({"class": 3}) == ("3", None)
    assert label_of({"label": "cat"}) == ("cat", None)
    assert label_of({"objects": []}) is None
    assert label_of({}) is None
