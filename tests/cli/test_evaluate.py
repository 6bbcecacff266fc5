"""``semhitok evaluate``: groups, what is skipped, what is written."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from tests.tiny import save_images, tiny_model

from semhitok.cli.evaluate import open_groups
from semhitok.metrics.frechet import FeatureExtractor


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SEMHITOK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def scenes(tmp_path):
    """Pictures with the labels of scenes, one of them unreadable."""
    folder = save_images(tmp_path / "held out", count=24)
    for index, file in enumerate(sorted(folder.glob("*.png"))):
        item = {"concept": f"thing {index % 6}", "category": f"kind {index % 2}", "box": [0, 0, 9, 9]}
        file.with_suffix(".json").write_text(json.dumps({"objects": [item]}))
    (folder / "005.png").write_bytes(b"")
    return folder


def test_groups_are_reported_apart(run, checkpoint, pictures, scenes, tmp_path):
    arguments = ["evaluate", checkpoint, f"photographs={pictures}", scenes, "--batch-size", "8", "--limit", "20"]
    arguments += ["--before", checkpoint, "--probe-train", scenes, "--out", tmp_path / "e"]
    outcome = run(*arguments)
    assert outcome.code == 0
    report = json.loads((tmp_path / "e" / "report.json").read_text())
    assert list(report["groups"]) == ["photographs", "held out"]
    assert report["groups"]["photographs"]["reconstruction"]["images"] == 9
    assert report["groups"]["held out"]["reconstruction"]["images"] == 19
    assert set(report["groups"]["held out"]["probe"]) == {"semantic", "pixel"}
    assert report["stage_conflict"]["identical"]
    assert "bit-identical" in outcome.out
    assert "005.png" in outcome.out
    assert "1 unreadable images left out in all" in outcome.out
    for line, name in (("skipped the Fréchet distance", "efficientnet_lite2.pth"), ("the perceptual", "vgg16_hed.h5")):
        said = next(text for text in outcome.out.splitlines() if line in text)
        assert name in said
        assert "`semhitok data fetch weights`" in said
    written = {re.fullmatch(r"wrote (.*)", line)[1] for line in outcome.out.splitlines() if line.startswith("wrote")}
    assert written == {str(path) for path in (tmp_path / "e").iterdir()}
    assert {"report.md", "reconstructions.png"} <= {path.name for path in (tmp_path / "e").iterdir()}


def test_another_tokenizer_as_the_earlier_stage_conflicts(run, checkpoint, pictures, tmp_path):
    tiny_model(seed=5).save_pretrained(tmp_path / "other")
    outcome = run("evaluate", checkpoint, pictures, "--before", tmp_path / "other", "--out", tmp_path / "e")
    assert outcome.code == 0
    assert "The stages conflict" in outcome.out


def test_switched_off_distances_are_not_mentioned(run, checkpoint, pictures, tmp_path):
    outcome = run("evaluate", checkpoint, pictures, "--no-frechet", "--no-perceptual", "--out", tmp_path / "e")
    assert outcome.code == 0
    assert "skipped" not in outcome.out


def test_distances_are_measured_where_their_weights_are(run, checkpoint, monkeypatch, tmp_path):
    weights = tmp_path / "cache" / "weights"
    weights.mkdir(parents=True)
    (weights / "efficientnet_lite2.pth").touch()
    (weights / "vgg16_hed.h5").touch()
    extractor = FeatureExtractor("Fréchet distance (test)", "means", lambda images: images.mean(dim=(2, 3)))
    loaded = []

    def features(path, *, device):
        loaded.append(path)
        return extractor

    class Perceptual(torch.nn.Module):
        def forward(self, ours, theirs):
            return (ours - theirs).abs().mean(dim=(1, 2, 3))

    monkeypatch.setattr("semhitok.evaluation.efficientnet_lite2_features", features)
    monkeypatch.setattr("semhitok.losses.VGGPerceptual.from_hed", lambda path: loaded.append(path) or Perceptual())
    many = save_images(tmp_path / "many", count=101)
    outcome = run("evaluate", checkpoint, many, "--out", tmp_path / "e")
    assert outcome.code == 0
    assert loaded == [weights / "efficientnet_lite2.pth", weights / "vgg16_hed.h5"]
    group = json.loads((tmp_path / "e" / "report.json").read_text())["groups"]["many"]
    assert group["frechet"][0]["images"] == 101
    assert 0 < group["reconstruction"]["perceptual"] < 2
    assert "Fréchet distance (test)" in outcome.out


def test_rfid_needs_its_weights(run, checkpoint, pictures, tmp_path):
    arguments = ["--inception", tmp_path / "no.pth", "--no-frechet", "--no-perceptual", "--out", tmp_path / "e"]
    outcome = run("evaluate", checkpoint, pictures, *arguments)
    assert outcome.code == 1
    assert str(tmp_path / "no.pth") in outcome.err


def test_names_of_groups(pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "a=b")
    assert list(open_groups([str(pictures), f"mine={pictures}", str(tmp_path / "a=b")])) == ["pictures", "mine", "a=b"]


def test_two_groups_of_one_name_and_missing_data(run, checkpoint, pictures, tmp_path):
    outcome = run("evaluate", checkpoint, pictures, f"pictures={pictures}")
    assert outcome.code == 2
    assert "two sets of images are called 'pictures'" in outcome.err
    outcome = run("evaluate", checkpoint, tmp_path / "nosuch")
    assert outcome.code == 1
    assert str(tmp_path / "nosuch") in outcome.err


def test_images_outside_a_data_set_are_read_only_if_allowed(run, checkpoint, pictures, tmp_path):
    datasets = pytest.importorskip("datasets")
    paths = [str(path) for path in sorted(pictures.iterdir())]
    (tmp_path / "set").mkdir()
    rows = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image(decode=False))
    rows.to_parquet(tmp_path / "set" / "rows.parquet")
    given = {
        "evaluate": ("evaluate", checkpoint, tmp_path / "set" / "rows.parquet", "--out", tmp_path / "report"),
        "codes": ("codes", tmp_path / "set" / "rows.parquet", "--model", checkpoint, "--out", tmp_path / "codes"),
    }
    for arguments in given.values():
        outcome = run(*arguments)
        assert outcome.code == 1
        assert "allow_outside" in outcome.err
        outcome = run(*arguments, "--allow-outside")
        assert outcome.code == 0, outcome.err
