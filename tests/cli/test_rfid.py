"""``semhitok rfid``: the printed figure and its conditions, with mean colours in place of Inception's features."""

from __future__ import annotations

import json

import torch

from semhitok.metrics.frechet import FeatureExtractor


def test_the_figure_is_printed_with_its_conditions(run, checkpoint, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMHITOK_CACHE", str(tmp_path / "cache"))
    asked = []

    def mean_colours(weights, *, protocol, device):
        asked.append((weights.name, protocol))
        return FeatureExtractor("rFID (clean-fid)", "mean colours", lambda images: images.mean(dim=(2, 3)))

    monkeypatch.setattr("semhitok.metrics.frechet.inception_features", mean_colours)
    (tmp_path / "inception.pth").touch()
    arguments = ("rfid", checkpoint, pictures, "--weights", tmp_path / "inception.pth", "--protocol", "clean-fid")
    outcome = run(*arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("rFID (clean-fid) ")
    assert "(mean colours; crop: shorter side resized" in outcome.out
    assert "reference statistics computed)" in outcome.out
    again = json.loads(run(*arguments, "--json").out)
    assert again["reference"] == "cached"
    assert f"{again['distance']:.4f}" in outcome.out
    assert asked == [("inception.pth", "clean-fid")] * 2
    assert torch.distributed.is_initialized() is False


def test_missing_weights_are_told_with_their_address(run, checkpoint, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMHITOK_CACHE", str(tmp_path))
    outcome = run("rfid", checkpoint, pictures)
    assert outcome.code == 1
    assert (
        f"there is no file {tmp_path / 'weights' / 'weights-inception-2015-12-05-6726825d.pth'}: fetch it from https://"
        in outcome.err
    )
