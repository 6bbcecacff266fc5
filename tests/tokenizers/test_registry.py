"""A tokenizer is one folder and one line: whatever takes a tokenizer takes it, and nothing asks which kind it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from examples.new_tokenizer import GreyConfig, GreyModel
from PIL import Image
from tests.tiny import pixels, tiny_model
from tests.tiny_released import tiny_released
from tests.tiny_unitok import tiny_unitok
from tests.tiny_vit import tiny_vit
from transformers import AutoModel

import semhitok
from semhitok.cli import main
from semhitok.inference.loading import newest_model
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint
from semhitok.tokenizers.loading import load_tokenizer
from semhitok.tokenizers.protocol import Tokenizer
from semhitok.tokenizers.registry import TOKENIZERS, register_auto_classes, tokenizer_kind


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run of a tokenizer that the line of its own makes known."""
    monkeypatch.setitem(TOKENIZERS, "grey", "examples.new_tokenizer")
    register_auto_classes()
    GreyModel(GreyConfig(stages=["shades"])).save_pretrained(tmp_path / "run" / "model")
    return tmp_path / "run"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for level in (0, 90, 250):
        Image.new("RGB", (16, 16), (level,) * 3).save(tmp_path / "pictures" / f"{level:03}.png")
    return tmp_path / "pictures"


def test_it_is_loaded_by_what_its_checkpoint_says(run: Path):
    assert newest_model(run) == run / "model"
    assert isinstance(load_tokenizer(run / "model"), GreyModel)
    assert isinstance(AutoModel.from_pretrained(run / "model"), GreyModel)


def test_the_fingerprint_is_of_the_tensors_that_it_names(run: Path):
    model = GreyModel(GreyConfig())
    fingerprint = tokenizer_fingerprint(model)
    with torch.no_grad():
        model.gain.mul_(0.5)
        assert tokenizer_fingerprint(model) == fingerprint
        model.shades_K[0] = -0.5
        assert tokenizer_fingerprint(model) != fingerprint


def test_the_commands_take_it(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["type"], facts["levels"], facts["bits_per_image"], facts["parameters"]["gain"]) == ("grey", 8, 48, 1)
    evaluated = ["evaluate", str(run), f"shades={pictures}", "--no-frechet", "--no-perceptual", "--out", "figures"]
    assert main(evaluated) == 0
    assert json.loads(Path("figures/report.json").read_text())["vocab_size"] == 8
    assert main(["export", str(run), "out", "--figures", "figures/report.json"]) == 0
    card = Path("out/README.md").read_text()
    assert "A Grey image tokenizer (no paper): 16 x 16 pixels become 16 tokens out of 8 (48 bits, 6 bytes)" in card
    assert "| stored as | float32; gain as bfloat16; loads as float32 |" in card
    assert "| shades |" in card
    exported = load_tokenizer("out").eval()
    assert torch.equal(
        exported.encode(pixels(2, size=16)).ids, load_tokenizer(run / "model").encode(pixels(2, size=16)).ids
    )
    capsys.readouterr()
    assert main(["codes", str(pictures), "--model", str(run)]) == 1
    assert "has no semantic codes" in capsys.readouterr().err


@pytest.mark.parametrize("model_type", list(TOKENIZERS))
def test_every_kind_follows_the_protocol(model_type: str):
    kind = tokenizer_kind(model_type)
    assert kind.config_class.model_type == model_type
    assert kind.stages
    tiny = {
        "semhitok": tiny_model,
        "unitok": tiny_unitok,
        "vit_tokenizer": tiny_vit,
        "released_tokenizer": tiny_released,
    }
    model = tiny[model_type]()
    assert type(model) is kind.model_class
    assert isinstance(model, Tokenizer)
    for names in (model.id_tensors, model.rounding.tensors):
        assert all(any(key.startswith(name) for key in model.state_dict()) for name in names)


def test_nothing_outside_its_own_folder_asks_for_the_kind_of_a_tokenizer():
    source = Path(semhitok.__file__).parent
    question = re.compile(
        r"isinstance\([^)]*\b(SemHiTok|UniTok|ViTTokenizer|ReleasedTokenizer)(Model|Config|Processor)\b|case (SemHiTok|UniTok|ViTTokenizer|ReleasedTokenizer)\w+\(\)"
    )
    own = [source.parent / package.replace(".", "/") for package in TOKENIZERS.values()]
    asking = [
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if not any(path.is_relative_to(folder) for folder in own) and question.search(path.read_text())
    ]
    assert asking == []
