"""``semhitok codes``: which patches are found and how alike they look, against brute force; the picture and the list."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import SIZE, tiny_images

from semhitok import SemHiTokModel
from semhitok.data.reading import SizedImages
from semhitok.data.sources import open_images
from semhitok.data.transforms import to_float
from semhitok.inference.code_patches import CodePatches, Patch, find_patches, patch_descriptors
from semhitok.quantizers.layout import IdLayout
from semhitok.visualization.code_rows import TILE, cut_tile, tile_detail


@pytest.fixture(scope="module")
def found(checkpoint, pictures) -> CodePatches:
    model = SemHiTokModel.from_pretrained(checkpoint).eval()
    return find_patches(model, SizedImages(open_images((pictures,)), SIZE, batch_size=4))


def test_likeness_is_the_mean_correlation_between_images(found):
    pixel_values = to_float(tiny_images(9))
    looks_INF = patch_descriptors(pixel_values, (4, 4))
    semantic_IN = found.ids_IN // 4
    for code in range(16):
        means = [looks_INF[i][semantic_IN[i] == code].mean(dim=0) for i in range(9) if (semantic_IN[i] == code).any()]
        pairs = [float(one @ other) for one, other in itertools.combinations(means, 2)]
        assert found.seen_K[code] == len(means)
        assert float(found.likeness_K[code]) == pytest.approx(np.mean(pairs) if pairs else 0.0, abs=1e-5)


def test_looks_ignore_brightness_and_flat_patches():
    image = to_float(tiny_images(1))
    assert torch.allclose(patch_descriptors(image, (4, 4)), patch_descriptors(image * 0.7 + 0.2, (4, 4)), atol=1e-5)
    assert torch.allclose(patch_descriptors(image, (4, 4)).norm(dim=-1), torch.ones(1, 16))
    assert patch_descriptors(torch.full((1, 3, 32, 32), 0.3), (4, 4)).abs().max() == 0


def test_ranking():
    ids_IN = torch.tensor([[0, 1, 4, 4], [0, 2, 4, 8]])  # m = 4: codes 0, 0, 1, 1 and 0, 0, 1, 2
    likeness_K, seen_K = torch.tensor([0.2, 0.9, 0.0, 0.0]), torch.tensor([2, 2, 1, 0])
    patches = CodePatches(torch.tensor([5, 7]), ids_IN, (2, 2), IdLayout.of(len(seen_K), 4), seen_K, likeness_K)
    assert patches.most_used(5) == [0, 1, 2]  # code 3 is never seen
    assert patches.most_alike(1) == [1]
    assert patches.subcode_counts(0) == [2, 1, 1, 0]
    assert patches.subcode_counts(3) == [0, 0, 0, 0]
    assert patches.choose(3, 4) == []
    # One of each image first, from its middle; ordered by pixel code.
    assert patches.choose(0, 2) == [Patch(5, 0, 1, 1), Patch(7, 0, 1, 2)]
    assert len(patches.choose(0, 3)) == 3
    assert patches.choose(0, 9) == [Patch(5, 0, 0, 0), Patch(7, 0, 0, 0), Patch(5, 0, 1, 1), Patch(7, 0, 1, 2)]
    assert patches.choose(1, 9) == [Patch(5, 1, 0, 0), Patch(5, 1, 1, 0), Patch(7, 1, 0, 0)]


def test_tiles_are_cut_where_the_patch_is():
    detail = tile_detail(1)
    assert 3 * detail == TILE
    pixels = np.zeros((4 * detail, 4 * detail, 3), dtype=np.uint8)
    for row, column in itertools.product(range(4), range(4)):
        pixels[row * detail : (row + 1) * detail, column * detail : (column + 1) * detail] = (60 * row, 60 * column, 9)
    tile = np.asarray(cut_tile(Image.fromarray(pixels), Patch(0, 2, 0, 0), detail, 1))
    half = detail // 2
    assert tuple(tile[detail + half, detail + half]) == (120, 0, 9)
    assert tuple(tile[half, detail + half]) == (60, 0, 9)
    assert tuple(tile[detail + half, 2 * detail + half]) == (120, 60, 9)
    assert tuple(tile[detail + half, half]) == (0xD5, 0xDA, 0xE0)  # beyond the border
    assert tuple(tile[detail, detail]) == (255, 255, 255)
    bare = np.asarray(cut_tile(Image.fromarray(pixels), Patch(0, 3, 1, 0), detail, 0))
    assert (bare == (180, 60, 9)).all()
    assert tile_detail(0) == TILE


def test_picture_and_list(run, checkpoint, pictures, found, tmp_path):
    arguments = ["codes", pictures, "--model", checkpoint, "--batch-size", "4", "--top", "3", "--patches", "5"]
    outcome = run(*arguments, "--by", "used", "--out", tmp_path / "c")
    assert outcome.code == 0
    assert "9 images, 144 patches" in outcome.out
    content = json.loads((tmp_path / "c" / "codes.json").read_text())
    assert [entry["code"] for entry in content["codes"]] == found.most_used(3)
    for entry in content["codes"]:
        assert entry["patches_by_pixel_code"] == found.subcode_counts(entry["code"])
        assert len(entry["shown"]) == min(5, entry["patches"])
        for shown in entry["shown"]:
            image = int(shown["image"][:3])
            token = shown["row"] * 4 + shown["column"]
            assert found.ids_IN[image, token] == entry["code"] * 4 + shown["pixel_code"]
            assert shown["box"] == [
                shown["column"] * 8,
                shown["row"] * 8,
                shown["column"] * 8 + 8,
                shown["row"] * 8 + 8,
            ]
    picture = Image.open(tmp_path / "c" / "codes.png")
    assert picture.height > 3 * TILE
    assert picture.width > 5 * TILE


def test_chosen_codes(run, checkpoint, pictures, found, tmp_path):
    unseen = [code for code in range(16) if not found.seen_K[code]]
    codes = [found.most_alike(1)[0], *unseen[:1]]
    files = sorted(pictures.glob("*.png"))
    outcome = run("codes", *files, "--model", checkpoint, "--context", "0", "--out", tmp_path / "c", "--code", *codes)
    assert outcome.code == 0
    content = json.loads((tmp_path / "c" / "codes.json").read_text())
    assert [entry["code"] for entry in content["codes"]] == codes
    assert content["codes"][0]["shown"][0]["image"] in [str(file) for file in files]


def test_options_that_make_no_sense(run, checkpoint, pictures):
    outcome = run("codes", pictures, "--model", checkpoint, "--code", "16")
    assert outcome.code == 2
    assert "are 0 to 15, got 16" in outcome.err
    assert run("codes", pictures, "--model", checkpoint, "--context", "9").code == 2


def test_bad_pictures_are_left_out_and_said(run, checkpoint, pictures, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    content = (pictures / "000.png").read_bytes()
    for index in range(20):
        (folder / f"{index:02d}.png").write_bytes(content)
    (folder / "07.png").write_bytes(b"")
    outcome = run("codes", folder, "--model", checkpoint, "--top", "1", "--out", tmp_path / "c")
    assert outcome.code == 0
    assert "1 unreadable images left out" in outcome.out
    (left_out,) = json.loads((tmp_path / "c" / "codes.json").read_text())["left_out"]
    assert "07.png" in left_out["image"]
