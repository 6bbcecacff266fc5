"""encode, decode and reconstruct against the model called by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.tiny import SIZE

from semhitok import SemHiTokModel, TokenizerImageProcessor
from semhitok.data.transforms import to_pil
from semhitok.inference.token_files import load_ids


@pytest.fixture(scope="module")
def expected(checkpoint, pictures):
    """Ids and reconstructions of all pictures, in one batch."""
    model = SemHiTokModel.from_pretrained(checkpoint).eval()
    files = sorted(pictures.glob("*.png"))
    pixel_values = TokenizerImageProcessor(size=SIZE)(files)["pixel_values"]
    ids = model.encode(pixel_values).ids
    return files, pixel_values, ids, model.decode(ids)


def _pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("ending", [".npy", ".json", ".safetensors"])
def test_encode_then_decode(run, checkpoint, pictures, expected, tmp_path, ending):
    files, _, ids, copies = expected
    file = tmp_path / "new" / f"ids{ending}"
    outcome = run("encode", pictures, "--model", checkpoint, "--out", file, "--batch-size", "4", "--device", "cpu")
    assert outcome.code == 0
    assert "9 images, 4x4 tokens each" in outcome.out
    names = [file.with_suffix(".names.json")] if ending == ".npy" else []
    assert sorted(file.parent.iterdir()) == sorted([file, *names])
    found, grid = load_ids(file)
    assert torch.equal(found, ids)
    assert grid == (4, 4)
    assert run("decode", file, "--model", checkpoint, "--out", tmp_path / "back", "--batch-size", "4").code == 0
    written = sorted((tmp_path / "back").iterdir())
    assert len(written) == len(files)
    for path, copy in zip(written, copies, strict=True):
        # Batches of another size may round the last bit otherwise.
        assert np.abs(_pixels(path).astype(int) - np.asarray(to_pil(copy)).astype(int)).max() <= 1


def test_formats_hold_what_they_say(run, checkpoint, pictures, expected, tmp_path):
    files, _, ids, _ = expected
    for ending in (".npy", ".json", ".safetensors"):
        assert run("encode", *files, "--model", checkpoint, "--out", tmp_path / f"i{ending}").code == 0
    array = np.load(tmp_path / "i.npy")
    assert array.shape == (9, 4, 4)
    assert np.array_equal(array.reshape(9, 16), ids.numpy())
    content = json.loads((tmp_path / "i.json").read_text())
    assert content == {"grid": [4, 4], "names": [file.name for file in files], "ids": ids.tolist()}
    assert torch.equal(load_file(tmp_path / "i.safetensors")["ids"], ids)


def test_plain_lists_of_ids_decode(run, checkpoint, expected, tmp_path):
    _, _, ids, copies = expected
    (tmp_path / "ids.json").write_text(json.dumps(ids[0].tolist()))
    assert run("decode", tmp_path / "ids.json", "--model", checkpoint, "--out", tmp_path / "out").code == 0
    (path,) = (tmp_path / "out").iterdir()
    assert np.abs(_pixels(path).astype(int) - np.asarray(to_pil(copies[0])).astype(int)).max() <= 1


def test_reconstruct_writes_picture_ids_figures_and_images(run, checkpoint, pictures, expected, tmp_path):
    files, pixel_values, ids, _ = expected
    outcome = run("reconstruct", pictures, "--model", checkpoint, "--out", tmp_path / "r", "--batch-size", "4")
    assert outcome.code == 0
    assert torch.equal(load_ids(tmp_path / "r" / "ids.npy")[0], ids)
    figures = json.loads((tmp_path / "r" / "figures.json").read_text())
    assert [entry["name"] for entry in figures["images"]] == [file.name for file in files]
    assert figures["bits"] == 16 * 6
    written = sorted((tmp_path / "r" / "images").iterdir())
    assert [path.name for path in written] == [f"{n:03d}_{file.stem}.png" for n, file in enumerate(files)]
    for entry, path, original in zip(figures["images"], written, pixel_values, strict=True):
        copy = torch.from_numpy(_pixels(path).copy()).permute(2, 0, 1) / 255
        mse = ((original + 1) / 2 - copy).square().mean()
        assert entry["psnr"] == pytest.approx(-10 * torch.log10(mse).item(), abs=0.05)
    assert figures["psnr"] == pytest.approx(np.mean([entry["psnr"] for entry in figures["images"]]))
    picture = Image.open(tmp_path / "r" / "reconstruction.png")
    assert min(picture.size) > 300


def test_tiles_are_put_together_again(run, checkpoint, tmp_path):
    photograph = Image.effect_noise((75, 40), 60).convert("RGB")
    photograph.save(tmp_path / "wide.png")
    outcome = run("reconstruct", tmp_path / "wide.png", "--model", checkpoint, "--out", tmp_path / "r", "--fit", "tile")
    assert outcome.code == 0
    assert Image.open(tmp_path / "r" / "images" / "000_wide.png").size == (75, 40)
    assert np.load(tmp_path / "r" / "ids.npy").shape == (2 * 3, 4, 4)


def test_folders_are_searched_for_pictures_only(run, checkpoint, pictures, tmp_path):
    (tmp_path / "mixed").mkdir()
    Image.open(pictures / "000.png").save(tmp_path / "mixed" / "b.PNG")
    for name in ("notes.txt", ".hidden.png", "b.json"):
        (tmp_path / "mixed" / name).write_text("no picture")
    assert run("encode", tmp_path / "mixed", "--model", checkpoint, "--out", tmp_path / "ids.npy").code == 0
    assert np.load(tmp_path / "ids.npy").shape[0] == 1
