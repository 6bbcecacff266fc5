"""What the tab Reconstruct shows: the figures and pictures of the Python API, for one tokenizer, several, and stages."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image
from tests.studio.pieces import Piece

from semhitok import load_tokenizer, read_codes, reconstruct_images
from semhitok.metrics.reconstruction import psnr_per_image
from semhitok.studio.reconstruct import show


@pytest.fixture(scope="module")
def photograph(pictures) -> str:
    return str(next(iter(sorted(pictures.glob("*.png")))))


def equal(one: Image.Image, two: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(two))


def test_a_card_shows_what_the_python_api_gives_back(workspace, models, photograph):
    page = Piece(show(workspace, photograph, [models["one"]], "crop"))
    tokenizer = load_tokenizer(models["one"])
    (restored,) = reconstruct_images(tokenizer, [photograph])
    assert equal(page.image("reconstruction by one"), restored.image())
    assert f"{float(psnr_per_image(restored.originals, restored.copies)):.2f} dB" in page.text
    bits = 16 * math.log2(64)
    assert f"{bits / 8:.0f} bytes ({bits:.0f} bits)" in page.text
    (slider,) = page.all("input", type="range")
    assert "original on the left" in slider["aria-label"]


def test_the_semantic_codes_alone_stand_beside_both(workspace, models, photograph):
    page = Piece(show(workspace, photograph, [models["one"]], "crop"))
    codes = read_codes(load_tokenizer(models["one"]), photograph)
    assert equal(page.image("semantic codes alone"), codes.semantic_picture())
    assert equal(page.image("both codes"), codes.picture())
    assert "bits 64" in page.text  # 16 tokens of 16 semantic codes


def test_several_tokenizers_stand_side_by_side(workspace, models, photograph):
    page = Piece(show(workspace, photograph, [models["one"], models["uni"]], "resize"))
    assert len(page.all("input", type="range")) == 2
    assert "4 x 4 codes" in page.text
    assert len([image for image in page.all("img") if image["alt"] == "semantic codes alone"]) == 1


def test_the_stages_of_a_run_are_shown(workspace, models, photograph):
    page = Piece(show(workspace, photograph, [models["run"]], "crop"))
    for stage in ("pixel", "decoder"):
        (restored,) = reconstruct_images(load_tokenizer(f"{models['run']}/{stage}/model"), [photograph])
        assert equal(page.image(f"after stage {stage}"), restored.image())


def test_tiles_keep_the_shape_of_the_photograph(workspace, models, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 90, 3), dtype=np.uint8)).save(tmp_path / "wide.png")
    page = Piece(show(workspace, str(tmp_path / "wide.png"), [models["one"]], "tile"))
    assert page.image("reconstruction by one").size == page.image("original").size == (90, 40)
    assert "6 tiles of 32 x 32 px" in page.text
    assert "semantic codes alone" not in page.text
    Image.new("RGB", (4096, 64)).save(tmp_path / "long.png")
    page = Piece(show(workspace, str(tmp_path / "long.png"), [models["one"]], "tile"))
    assert page.image("original").size == (1024, 16)


def test_bad_input_is_a_sentence(workspace, models, photograph, tmp_path):
    assert "Drop a photograph" in show(workspace, None, [models["one"]], "crop")
    with pytest.raises(ValueError, match="choose at least one tokenizer"):
        show(workspace, photograph, [], "crop")
    (tmp_path / "odd.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="the photograph: not an image"):
        show(workspace, str(tmp_path / "odd.png"), [models["one"]], "crop")
    with pytest.raises(FileNotFoundError, match="no checkpoint at /nosuch"):
        show(workspace, photograph, ["/nosuch"], "crop")
