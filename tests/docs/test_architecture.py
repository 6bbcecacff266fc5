"""What docs/architecture.md says of the tree is so; what it says on adding a tokenizer, and docs/own-quantizer.md on adding a quantizer, works."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from examples.new_quantizer import SimVQ
from examples.new_tokenizer import GreyConfig, GreyModel
from tests.tiny import ARCHITECTURE, pixels, run_tiny, save_images, save_teacher, take_steps, tiny_model, tiny_recipe
from tests.tiny_unitok_training import captioned_feed, unitok_model, unitok_task

from semhitok.cli import main
from semhitok.quantizers import ONE_CODE_PER_TOKEN
from semhitok.tokenizers.registry import TOKENIZERS, register_auto_classes

ROOT = Path(__file__).parents[2]
PAGE = "\n".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("architecture.md", "own-quantizer.md"))


def line_of(table: str, name: str) -> Any:
    """The entry that the page adds to a table, under its name."""
    (entry,) = re.findall(rf'^"{name}": (.*),  # in {re.escape(table)}$', PAGE, re.MULTILINE)
    return eval(entry, {"SimVQ": SimVQ})


def test_the_tree_names_every_package_and_nothing_else():
    package = ROOT / "src" / "semhitok"
    named = re.findall(r"^  ([a-z_]+)(?:/|\.py) ", PAGE, re.MULTILINE)
    there = [path.parent.name for path in package.glob("*/__init__.py")]
    there += [path.stem for path in package.glob("*.py") if path.stem != "__init__"]
    assert sorted(named) == sorted([*there, "checkpoints"])


def test_every_file_that_the_page_names_is_there():
    for name in re.findall(r"`([\w./-]+\.(?:py|md|toml))`", PAGE):
        assert (ROOT / name).exists() or (ROOT / "src" / "semhitok" / name).exists(), name


def test_a_quantizer_is_one_file_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(ONE_CODE_PER_TOKEN, "simvq", line_of("ONE_CODE_PER_TOKEN", "simvq"))
    with pytest.raises(ValueError, match="must be one of ema, vanilla, normalized, simvq, got 'median'"):
        tiny_model(semantic_quantizer="median")
    save_teacher(tmp_path / "teacher")
    images = save_images(tmp_path / "images")
    recipe = tiny_recipe(tmp_path / "teacher", model={**ARCHITECTURE, "semantic_quantizer": "simvq"})
    recipe = replace(recipe, semantic=replace(recipe.semantic, loop=replace(recipe.semantic.loop, steps=10)))
    state = run_tiny(recipe, images, tmp_path / "run", ("semantic", "pixel"))
    assert state.finished
    losses = [
        entry["loss"]
        for entry in map(json.loads, (tmp_path / "run" / "semantic" / "metrics.jsonl").read_text().splitlines())
        if "loss" in entry
    ]
    assert losses[-1] < losses[0]
    evaluated = ["evaluate", str(tmp_path / "run"), str(images), "--no-frechet", "--no-perceptual"]
    assert main([*evaluated, "--out", str(tmp_path / "figures")]) == 0
    report = json.loads((tmp_path / "figures" / "report.json").read_text())
    assert report["vocab_size"] == ARCHITECTURE["semantic_codebook_size"] * ARCHITECTURE["subcodebook_size"]
    # The other slot that a quantizer can have.
    unitok = unitok_model(quantizer="simvq", num_codebooks=1)
    assert "usage" in take_steps(unitok_task(unitok), captioned_feed(), 4)[2]


def test_the_quantizer_of_the_examples_gives_its_codes_back():
    quantizer = SimVQ(32, 6)
    with torch.no_grad():
        quantizer.basis_DD.copy_(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))
    z_BND = torch.randn(2, 50, 6, generator=torch.Generator().manual_seed(1))
    found = quantizer(z_BND)
    table_KD = quantizer.table_KD @ quantizer.basis_DD
    assert torch.equal(found.ids, torch.cdist(z_BND, table_KD.expand(2, -1, -1)).argmin(dim=-1))
    assert torch.equal(found.codes, quantizer.lookup(found.ids))


def test_a_tokenizer_is_one_folder_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(TOKENIZERS, "grey", line_of("TOKENIZERS", "grey"))
    register_auto_classes()
    model, images = GreyModel(GreyConfig(image_size=32, stages=["shades"])), pixels(8)
    with torch.no_grad():
        model.shades_K.mul_(0.2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(10):
        losses.append((model(images) - images).square().mean())
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    model.save_pretrained(tmp_path / "run" / "model")
    pictures = save_images(tmp_path / "images")
    evaluated = ["evaluate", str(tmp_path / "run"), str(pictures), "--no-frechet", "--no-perceptual"]
    assert main([*evaluated, "--out", str(tmp_path / "figures")]) == 0
    assert json.loads((tmp_path / "figures" / "report.json").read_text())["vocab_size"] == 8
