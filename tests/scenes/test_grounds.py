"""Plain grounds, against colours and pixels worked out otherwise; old data sets keep their bytes.

The made-up cut-outs are red (green and blue 0).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tests.training.tiny_task import TinyTask

from semhitok.data.feed import MemoryFeed
from semhitok.data.loading import load_into_memory
from semhitok.data.sources import TarShards, open_source
from semhitok.scenes.compose import compose
from semhitok.scenes.grounds import APART, from_oklab, oklab, plain_ground
from semhitok.scenes.questions import captions
from semhitok.scenes.shards import SceneRecipe, write_shards
from semhitok.scenes.splits import Material, material
from semhitok.training.loop import LoopConfig, train

SIZE = 96
# Of the ten scenes below, their descriptions and the means of their pixels, before there were grounds to choose from.
DIGEST_BEFORE = "ad52736c97963776c604173247450e5fb928fecabb9496a5b9cef67471b5a8d8"
MEANS_BEFORE = (76.198, 94.485, 84.278, 83.281, 76.961, 84.826, 62.026, 81.715, 85.002, 95.970)


def _recipe(**fields: object) -> SceneRecipe:
    return SceneRecipe(**{"split": "train", "count": 8, "size": (48, 48), "image_format": "png", **fields})  # pyright: ignore


def test_scenes_on_photographs_keep_their_bytes(everything: Material, tmp_path: Path) -> None:
    write_shards(tmp_path, SceneRecipe("train", 10, (48, 64), seed=3, image_format="png", per_shard=4), everything)
    digest, means = hashlib.sha256((tmp_path / "dataset.json").read_bytes()), []
    for path in sorted(tmp_path.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member).read()  # pyright: ignore
                if member.name.endswith(".png"):  # versions of Pillow decode and compress slightly differently
                    means.append(np.asarray(Image.open(io.BytesIO(content)), dtype=float).mean())
                    continue
                # The made-up cut-outs are named by the folder of this test run.
                digest.update(member.name.encode() + re.sub(rb'"name":"[^"]*/', b'"name":"', content))
    assert digest.hexdigest() == DIGEST_BEFORE
    assert means == pytest.approx(MEANS_BEFORE, abs=0.01)


def test_oklab_against_published_values() -> None:
    """sRGB's white, red, green and blue as the CSS Color 4 specification gives them."""
    published = {
        (255, 255, 255): (1.0, 0.0, 0.0), (255, 0, 0): (0.62796, 0.22486, 0.12585),
        (0, 255, 0): (0.86644, -0.23389, 0.17950), (0, 0, 255): (0.45201, -0.03246, -0.31153),
    }  # fmt: skip
    for rgb, lab in published.items():
        assert oklab(np.array(rgb)) == pytest.approx(np.array(lab), abs=2e-4)
    everywhere = np.stack(np.meshgrid(*[np.arange(0, 256, 51)] * 3), -1)
    assert from_oklab(oklab(everywhere)) == pytest.approx(everywhere, abs=0.01)


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (200, 30, 30), (60, 120, 220), (128, 128, 128)])
def test_no_ground_looks_like_the_thing_on_it(colour: tuple[int, int, int]) -> None:
    thing = Image.new("RGBA", (60, 40), (*colour, 0))
    ImageDraw.Draw(thing).rectangle((5, 5, 55, 35), fill=(*colour, 255))
    grounds = [plain_ground(np.random.default_rng(seed), [thing], 32, 48) for seed in range(60)]
    for image, name in grounds:
        kind, *ends = name.split()
        pixels = np.asarray(image)
        assert pixels.shape == (32, 48, 3)
        shown = {tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()}
        assert np.linalg.norm(oklab(np.array(sorted(shown))) - oklab(np.array(colour)), axis=-1).min() > 0.9 * APART
        assert (len(shown) == 1) == (kind == "flat")
        for end in ends:  # the ends of the name are colours of the picture
            assert tuple(bytes.fromhex(end[1:])) in shown
        steps = [np.abs(np.diff(pixels.astype(int), axis=axis)).max(initial=0) for axis in (0, 1)]
        assert max(steps) <= 12  # soft
    assert {name.split()[0] for _, name in grounds} == {"flat", "linear", "radial"}
    assert len({name for _, name in grounds}) == len(grounds)


def test_plain_scenes_show_what_they_state(everything: Material) -> None:
    for index in range(40):
        scene = compose(5, index, SIZE, SIZE, everything, ground="plain")
        assert scene.ground == "plain"
        assert scene.photographic == 0
        assert scene.objects
        # The same places as on photographs: all of it, the objects alone, the relations.
        whole, alone, *related = captions(scene)
        assert whole == alone == scene.caption
        assert " in front of " not in whole
        assert all(any(word in text for word in ("left", "right", "above", "below")) for text in related)
        inside = np.zeros((SIZE, SIZE), dtype=bool)
        for item in scene.objects:
            left, top, right, bottom = item.box
            inside[top:bottom, left:right] = True
        _, *ends = scene.background.split()
        colours = np.array([list(bytes.fromhex(end[1:])) for end in ends])
        outside = scene.image[~inside].astype(int)
        # Soft edges reach a pixel beyond a box.
        between = (outside >= colours.min(axis=0) - 1) & (outside <= colours.max(axis=0) + 1)
        assert between.all(axis=-1).mean() > 0.97


def test_mixed_scenes_are_those_of_either_ground(everything: Material) -> None:
    plain = 0
    for index in range(60):
        mixed, *single = (
            compose(2, index, 48, 48, everything, ground=ground, series="train")
            for ground in ("mixed", "plain", "photograph")
        )
        expected = single[0] if mixed.ground == "plain" else single[1]
        assert np.array_equal(mixed.image, expected.image)
        assert mixed.objects == expected.objects
        plain += mixed.ground == "plain"
    assert 18 < plain < 42


def test_splits_with_the_same_cutouts_have_other_plain_scenes(everything: Material) -> None:
    one, other = (compose(0, 3, 48, 48, everything, ground="plain", series=name) for name in ("train", "shared"))
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("ground", ["plain", "mixed"])
def test_the_ground_is_recorded(everything: Material, tmp_path: Path, ground: str) -> None:
    stuff = everything if ground == "mixed" else material("train", everything.cutouts, None)
    write_shards(tmp_path / "x", _recipe(ground=ground, count=20), stuff)
    source = TarShards(tmp_path / "x")
    samples = [source.load(index) for index in range(20)]
    for sample in samples:
        plain = sample.metadata["background"].split()[0] in ("flat", "linear", "radial")
        assert sample.metadata["ground"] == ("plain" if plain else "photograph")
    assert {sample.metadata["ground"] for sample in samples} == (
        {"plain"} if ground == "plain" else {"plain", "photograph"}
    )
    assert {question["kind"] for sample in samples for question in sample.metadata["qa"]} >= {"existence", "count"}
    described = json.loads((tmp_path / "x" / "dataset.json").read_text())
    assert described["recipe"]["ground"] == ground
    assert (described["backgrounds"] == []) == (ground == "plain")


def test_an_unknown_ground_is_refused() -> None:
    with pytest.raises(ValueError, match="ground is 'sand'; choose from photograph, plain, mixed"):
        _recipe(ground="sand")


def test_a_missing_split_is_said(everything: Material, tmp_path: Path) -> None:
    write_shards(tmp_path / "x", _recipe(ground="plain"), everything)
    with pytest.raises(ValueError, match="has no split 'heldout'"):
        open_source(tmp_path / "x", split="heldout")


def test_a_run_is_not_resumed_on_another_ground(everything: Material, tmp_path: Path) -> None:
    feeds = []
    for ground in ("photograph", "plain"):
        write_shards(tmp_path / ground, _recipe(ground=ground), everything)
        loaded = load_into_memory(open_source(tmp_path / ground), 8, 8, workers=0)
        feeds.append(MemoryFeed(loaded.images, seed=0, fingerprint=loaded.fingerprint))
    train(TinyTask(), feeds[0], LoopConfig(steps=2, batch_size=4), tmp_path / "run")
    with pytest.raises(ValueError, match="was made with other data: a run resumes on the same images"):
        train(TinyTask(), feeds[1], LoopConfig(steps=4, batch_size=4), tmp_path / "run")
