"""Commands and the language model take every system of the comparison without special cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.mllm.tiny_mllm import mllm
from tests.tiny import pixels, save_images
from tests.tiny_vit import SYSTEMS, tiny_vit

from semhitok.cli import main


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("vit") / "pictures", count=5)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_language_model_takes_its_tokens_as_input_and_output(system: str):
    tokenizer = tiny_vit(system)
    small = (
        {"code_head_layers": 1, "code_head_width": 16, "code_head_heads": 2} if tokenizer.codes_per_token > 1 else {}
    )
    model = mllm(tokenizer=tokenizer, adapter="single", **small)
    codes = tokenizer.encode(pixels(2)).ids
    embedded = model.adapter(tokenizer.embed(codes))
    assert embedded.shape == (2, 16, 32)
    assert embedded.isfinite().all()
    words = torch.tensor([[4, 5]]).expand(2, -1)
    ids = torch.cat([words, model.vocabulary.span(codes)], dim=1)
    extra = {}
    if tokenizer.codes_per_token > 1:
        visual = torch.zeros(*ids.shape, tokenizer.codes_per_token, dtype=torch.long)
        visual[:, 3:19] = codes
        extra = {"visual_codes": visual}
    loss = model(input_ids=ids, labels=ids, **extra).loss
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is not None for p in model.adapter.parameters())


@pytest.mark.parametrize("system", ["wetok", "tokenflow"])
def test_the_commands_take_it(system: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_vit(system, stages=["reconstruction"]).save_pretrained("model")
    assert main(["inspect", "model", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["system"] == system
    assert main(["reconstruct", str(pictures), "--model", "model", "--out", "back"]) == 0
    assert main(["encode", str(pictures), "--model", "model", "--out", "ids.npy"]) == 0
    assert np.array_equal(np.load("ids.npy"), np.load("back/ids.npy"))
    assert main(["decode", "ids.npy", "--model", "model", "--out", "decoded"]) == 0
    assert len(list(Path("decoded").glob("*.png"))) == 5
    evaluated = ["evaluate", "model", str(pictures), "--no-frechet", "--no-perceptual", "--out", "figures"]
    assert main(evaluated) == 0
    assert main(["export", "model", "shared", "--figures", "figures/report.json"]) == 0
    assert f"A {system} (comparison) image tokenizer" in Path("shared/README.md").read_text()
    capsys.readouterr()
    assert main(["codes", str(pictures), "--model", "model"]) == 1
    assert "has no semantic codes" in capsys.readouterr().err
