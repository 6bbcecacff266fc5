"""Every command on a UniTok checkpoint: several codes per token, a text tower, a run of one stage."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.tiny import save_images
from tests.tiny_unitok import SIZE, WORDS, save_unitok, tiny_unitok

from semhitok import TokenizerImageProcessor, UniTokModel
from semhitok.data.transforms import to_pil
from semhitok.export.tokenizer import export_tokenizer
from semhitok.inference.loading import newest_model
from semhitok.inference.token_files import load_ids
from semhitok.tokenizers.unitok.processing import UniTokProcessor

PROVENANCE = {"unitok": {"recipe": "unitok_nano", "data": "train", "date": "2026-01-02", "steps": 300, "samples": 9600}}


@pytest.fixture(scope="module")
def unitok(tmp_path_factory):
    return save_unitok(tmp_path_factory.mktemp("cli") / "unitok", stages=["unitok"], provenance=PROVENANCE)


@pytest.fixture(scope="module")
def expected(unitok, pictures):
    """Ids and reconstructions of all pictures, in one batch."""
    model = UniTokModel.from_pretrained(unitok).eval()
    files = sorted(pictures.glob("*.png"))
    ids = model.encode(TokenizerImageProcessor(size=SIZE)(files)["pixel_values"]).ids
    return ids, model.decode(ids)


@pytest.fixture
def scenes(tmp_path):
    """Pictures with captions and objects, as scenes have them."""
    folder = save_images(tmp_path / "scenes", count=16)
    for index, file in enumerate(sorted(folder.glob("*.png"))):
        item = {"concept": f"thing {'abcd'[index % 4]}", "category": f"kind {'xy'[index % 2]}", "box": [0, 0, 9, 9]}
        file.with_suffix(".json").write_text(json.dumps({"caption": WORDS[index % 4], "objects": [item]}))
    return folder


@pytest.mark.parametrize("ending", [".npy", ".json", ".safetensors"])
def test_encode_then_decode(run, unitok, pictures, expected, tmp_path, ending):
    ids, copies = expected
    file = tmp_path / f"ids{ending}"
    outcome = run("encode", pictures, "--model", unitok, "--out", file, "--batch-size", "4", "--device", "cpu")
    assert outcome.code == 0
    assert "9 images, 2x2 tokens of 4 codes each, ids below 16" in outcome.out
    found, grid = load_ids(file)
    assert torch.equal(found, ids)
    assert grid == (2, 2)
    assert run("decode", file, "--model", unitok, "--out", tmp_path / "back", "--batch-size", "4").code == 0
    for path, copy in zip(sorted((tmp_path / "back").iterdir()), copies, strict=True):
        difference = np.asarray(Image.open(path)).astype(int) - np.asarray(to_pil(copy)).astype(int)
        assert np.abs(difference).max() <= 1  # batches of another size may round the last bit otherwise


def test_formats_hold_what_they_say(run, unitok, pictures, expected, tmp_path):
    ids, _ = expected
    for ending in (".npy", ".json", ".safetensors"):
        assert run("encode", pictures, "--model", unitok, "--out", tmp_path / f"i{ending}").code == 0
    assert np.array_equal(np.load(tmp_path / "i.npy"), ids.reshape(9, 2, 2, 4).numpy())
    assert json.loads((tmp_path / "i.json").read_text())["ids"] == ids.tolist()
    assert torch.equal(load_file(tmp_path / "i.safetensors")["ids"], ids)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (np.zeros((2, 2, 2), dtype=np.int64), "holds 1 codes per token, the model"),
        (np.zeros((2, 2, 2, 3), dtype=np.int64), "holds 3 codes per token, the model"),
        (np.full((2, 2, 2, 4), 16), "ids must lie in [0, 16), got 16"),
        (np.zeros((2, 1, 2, 2, 4), dtype=np.int64), "whole numbers of shape"),
    ],
)
def test_ids_that_do_not_fit(run, unitok, tmp_path, ids, said):
    np.save(tmp_path / "ids.npy", ids)
    outcome = run("decode", tmp_path / "ids.npy", "--model", unitok, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert said in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fit", ["crop", "tile"])
def test_reconstruct(run, unitok, pictures, expected, tmp_path, fit):
    outcome = run("reconstruct", pictures, "--model", unitok, "--out", tmp_path / "r", "--fit", fit)
    assert outcome.code == 0
    assert "4 tokens of 4 x 16 codes = 8 bytes" in outcome.out
    assert torch.equal(load_ids(tmp_path / "r" / "ids.npy")[0], expected[0])
    figures = json.loads((tmp_path / "r" / "figures.json").read_text())
    assert (figures["bits"], figures["codes_per_token"]) == (4 * 4 * 4, 4)


def test_inspect(run, unitok):
    facts = json.loads(run("inspect", unitok, "--json").out)
    assert (facts["type"], facts["stages"], facts["codes_per_token"]) == ("unitok", ["unitok"], 4)
    assert (facts["tokens"], facts["vocab_size"], facts["bits_per_image"]) == (4, 16, 64)
    assert facts["provenance"] == PROVENANCE
    model = UniTokModel.from_pretrained(unitok)
    assert facts["parameters"]["all"] == sum(p.numel() for p in model.parameters())
    assert facts["parameters"]["logit_scale"] == 1
    assert facts["text_tower"]["vocab_size"] == 540
    lines = [line.split() for line in run("inspect", unitok).out.splitlines()]
    assert ["codes", "per", "token", "4"] in lines
    assert ["quantizer", "multi_codebook"] in lines


def test_continuous_features_have_no_ids(run, tmp_path, pictures):
    save_unitok(tmp_path / "clip", quantizer="none")
    facts = json.loads(run("inspect", tmp_path / "clip", "--json").out)
    assert not {"vocab_size", "bits_per_image", "codes_per_token"} & set(facts)
    for command in (
        ["encode", pictures, "--model", tmp_path / "clip"],
        ["export", tmp_path / "clip", tmp_path / "out"],
    ):
        outcome = run(*command)
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1
        assert "continuous features (quantizer none)" in outcome.err


def test_codes_and_stages_are_semhitok_s(run, unitok, checkpoint, pictures, tmp_path):
    outcome = run("codes", pictures, "--model", unitok, "--out", tmp_path / "c")
    assert outcome.code == 1
    assert (
        outcome.err == f"semhitok codes: {unitok} has no semantic codes: `semhitok codes` takes SemHiTok checkpoints\n"
    )
    for one, other in ((unitok, unitok), (checkpoint, unitok), (unitok, checkpoint)):
        outcome = run("evaluate", one, pictures, "--before", other, "--out", tmp_path / "e")
        assert outcome.code == 2
        assert "--before compares semantic ids" in outcome.err


def test_evaluate(run, unitok, scenes, tmp_path):
    options = ["--probe-train", scenes, "--no-frechet", "--no-perceptual", "--out", tmp_path / "e"]
    outcome = run("evaluate", unitok, scenes, *options)
    assert outcome.code == 0
    report = json.loads((tmp_path / "e" / "report.json").read_text())
    assert (report["bits"], report["codes_per_token"]) == (64, 4)
    group = report["groups"]["scenes"]
    assert set(group["language"]["zero_shot"]) == {"categories", "concepts"}
    assert group["language"]["retrieval"]["texts"] == 4
    assert set(group["probe"]) == {"pixel", "projected", "image"}
    assert len(group["codebooks"]["by_codebook"]) == 4
    for said in ("worst codebook", "zero-shot concepts", "image to text recall at 5", "probe"):
        assert said in outcome.out
    assert "## Images and texts" in (tmp_path / "e" / "report.md").read_text()


def test_evaluate_without_a_text_tower(run, scenes, tmp_path):
    save_unitok(tmp_path / "u", text=False)
    outcome = run("evaluate", tmp_path / "u", scenes, "--no-frechet", "--no-perceptual", "--out", tmp_path / "e")
    assert outcome.code == 0
    assert "Images and texts" not in (tmp_path / "e" / "report.md").read_text()


def test_a_missing_or_damaged_text_tokenizer(run, unitok, scenes, tmp_path):
    folder = shutil.copytree(unitok, tmp_path / "copy")
    (folder / "tokenizer.json").write_text("{")
    outcome = run("evaluate", folder, scenes, "--out", tmp_path / "e")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert f"the text tokenizer of {folder} cannot be loaded" in outcome.err
    assert not (tmp_path / "e").exists()


@pytest.fixture
def trained(unitok, tmp_path):
    """The folder of a finished run."""
    shutil.copytree(unitok, tmp_path / "run" / "model")
    return tmp_path / "run"


def test_a_run_stands_for_its_model(run, trained, unitok, expected, pictures, tmp_path):
    assert newest_model(trained) == trained / "model"
    assert run("encode", pictures, "--model", trained, "--out", tmp_path / "i.json").code == 0
    assert torch.equal(load_ids(tmp_path / "i.json")[0], expected[0])
    config = json.loads((trained / "model" / "config.json").read_text())
    (trained / "model" / "config.json").write_text(json.dumps(config | {"stages": []}))  # interrupted
    assert newest_model(trained) is None


def test_export_keeps_ids_and_embeddings(run, trained, expected, pictures, scenes, tmp_path):
    assert run("evaluate", trained, scenes, "--no-frechet", "--no-perceptual", "--out", tmp_path / "e").code == 0
    figures = ["--figures", tmp_path / "e" / "report.json", "--license", "MIT"]
    outcome = run("export", trained, tmp_path / "out", *figures)
    assert outcome.code == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (trained / "model", tmp_path / "out"))
    assert before.keys() == after.keys()
    for name in before:
        rounded = name.startswith(("decoder.", "text_model."))
        assert after[name].dtype == (torch.bfloat16 if rounded else torch.float32)
    ours, theirs = (UniTokModel.from_pretrained(folder).eval() for folder in (tmp_path / "out", trained / "model"))
    images = TokenizerImageProcessor.from_pretrained(tmp_path / "out")(sorted(pictures.glob("*.png")))["pixel_values"]
    assert torch.equal(ours.encode(images).ids, theirs.encode(images).ids)
    assert torch.equal(ours.image_embedding(images), theirs.image_embedding(images))
    theirs.decoder.bfloat16().float()
    theirs.text_model.bfloat16().float()
    assert torch.equal(ours.decode(expected[0]), theirs.decode(expected[0]))
    texts = UniTokProcessor.from_pretrained(tmp_path / "out")(text=WORDS)
    assert torch.equal(ours.text_embedding(**texts), theirs.text_embedding(**texts))
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "A UniTok image tokenizer (arXiv 2502.20321): 32 x 32 pixels become 4 tokens of 4 codes out of 16 each" in card
    )
    assert "| unitok | unitok_nano | train | 300 | 9,600 | none | 2026-01-02 |" in card
    assert "float32; decoder and text tower as bfloat16; loads as float32" in card
    assert "| scenes | concepts | 4 |" in card
    assert run("export", trained, tmp_path / "out").code == 0  # replaces the earlier one


def test_the_example_on_the_card_runs(run, trained, pictures, tmp_path, monkeypatch):
    assert run("export", trained, tmp_path / "mine").code == 0
    card = (tmp_path / "mine" / "README.md").read_text()
    monkeypatch.chdir(tmp_path)
    shutil.copy(pictures / "000.png", tmp_path / "photograph.jpg")
    names: dict = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    assert names["ids"].shape == (1, 4, 4)
    assert names["likeness"].shape == (1, 2)


def test_export_takes_the_text_tokenizer_along(tmp_path):
    with pytest.raises(ValueError, match="with its text tokenizer: pass its processor"):
        export_tokenizer(tiny_unitok(), tmp_path / "out", card="", provenance={})
    shipped = export_tokenizer(tiny_unitok(text=False), tmp_path / "out", card="", provenance={})
    assert set(shipped.sizes) == {"model.safetensors", "config.json", "preprocessor_config.json", "README.md"}
