"""Exporting a unified language model: what is rounded, what is left out, what comes back."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.mllm.tiny_mllm import codes_mllm, mixed_ids, mllm, processor
from tests.tiny import tiny_model

from semhitok.cli import main
from semhitok.export.language_model import export_language_model
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.tokenizers import checkpoints

STAGES = {"pretrain": {"recipe": "mllm_nano", "data": "scenes", "date": "2026-01-02", "steps": 30, "rows": 240}}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The folder of a run."""
    model = mllm(tokenizer=tiny_model())
    model.config.stages, model.config.provenance = ["pretrain"], STAGES
    model.save_pretrained(tmp_path / "run" / "pretrain" / "model")
    processor(model).save_pretrained(tmp_path / "run" / "pretrain" / "model")
    return tmp_path / "run"


def test_all_but_the_tokenizer_is_rounded(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    report = tmp_path / "report.md"
    report.write_text("| questions | right |\n| --- | --- |\n| existence | 99 % |\n")
    assert main(["export", str(trained), str(out), "--license", "Apache-2.0", "--figures", str(report)]) == 0
    assert "stages done: pretrain" in capsys.readouterr().out
    before = load_file(trained / "pretrain" / "model" / "model.safetensors")
    after = load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        rounded = not name.startswith("image_tokenizer.") and tensor.is_floating_point()
        assert after[name].dtype == (torch.bfloat16 if rounded else tensor.dtype), name
        assert torch.equal(after[name], tensor.to(after[name].dtype))
    card = (out / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    imported = [alias.name for line in ast.parse(code).body if isinstance(line, ast.ImportFrom) for alias in line.names]
    assert imported
    assert all(code.count(name) > 1 for name in imported), "the example uses what it imports"
    assert "license: apache-2.0" in card
    assert "| pretrain | mllm_nano | scenes | 30 | 240 |" in card
    assert "| existence | 99 % |" in card
    loaded = SemHiTokForConditionalGeneration.from_pretrained(out)
    assert loaded.dtype == torch.float32
    assert SemHiTokMLLMProcessor.from_pretrained(out)(text="a cat")["input_ids"].shape == (1, 2)


def test_a_shipped_tokenizer_is_left_out(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tiny_model().save_pretrained(tmp_path / "shipped" / "tiny")
    monkeypatch.setattr(checkpoints, "BUNDLED", tmp_path / "shipped")
    place = trained / "pretrain" / "model"
    model = SemHiTokForConditionalGeneration.from_pretrained(place).eval()
    given = SemHiTokMLLMProcessor.from_pretrained(place)
    model.config.tokenizer_config._name_or_path = str(tmp_path)
    shipped = export_language_model(model, given, tmp_path / "out", card="# A card\n", provenance={"licence": "MIT"})
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text(), (
        "where it was loaded from is nobody's concern"
    )
    assert not any(name.startswith("image_tokenizer.") for name in load_file(tmp_path / "out" / "model.safetensors"))
    assert shipped.total < sum(file.stat().st_size for file in place.iterdir()) / 2
    assert model.config.shared_tokenizer is None
    loaded = SemHiTokForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    assert "the shipped tiny" in loaded.config.provenance["stored"]
    assert loaded.config.provenance["licence"] == "MIT"
    ids = mixed_ids(model)
    torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0.05, atol=0.05)


OF_IMAGES = ["--image-guidance", "4", "--image-top-k", "50"]


def test_a_head_of_one_byte_a_weight_answers_as_before(tmp_path: Path):
    model = mllm("qwen2, untied", tokenizer=tiny_model())
    model.save_pretrained(tmp_path / "model")
    processor(model).save_pretrained(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--head", "float8", *OF_IMAGES]) == 0
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert stored["lm_head.weight"].dtype == torch.float8_e4m3fn
    norm, stored_norm = model.language_model.norm.weight, stored["language_model.norm.weight"]
    scale = 2 ** (norm / stored_norm.float()).log2().round()[0].item()
    assert torch.equal(stored_norm * scale, norm.bfloat16()), "the norm takes one power of two back"
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["image_guidance"], config["image_top_k"]) == (4.0, 50)
    assert 224 < stored["lm_head.weight"].float().abs().max() <= 448
    loaded = SemHiTokForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    error = (loaded.lm_head.weight / scale - model.lm_head.weight).abs() / model.lm_head.weight.abs()
    assert error[model.lm_head.weight.abs() > 1e-3].max() <= 1 / 16, "three bits of mantissa"
    ids = mixed_ids(model)
    rounded = SemHiTokForConditionalGeneration.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        for name, parameter in rounded.named_parameters():
            if not name.startswith("image_tokenizer.") and name != "lm_head.weight":
                parameter.copy_(parameter.bfloat16())
        rounded.lm_head.weight.copy_(loaded.lm_head.weight / scale)
    torch.testing.assert_close(loaded(input_ids=ids).logits, rounded(input_ids=ids).logits)
    assert "head in float8 (e4m3)" in (tmp_path / "out" / "README.md").read_text()


def test_what_cannot_be_exported_is_said(trained: Path, tmp_path: Path, capsys):
    for options in (["nano"], [str(trained / "pretrain"), "--format", "onnx"]):
        assert main(["export", options[0], str(tmp_path / "out"), *options[1:], *OF_IMAGES]) == 2
        assert "--image-guidance and --image-top-k belong to a" in capsys.readouterr().err
    assert main(["export", str(trained / "pretrain"), str(tmp_path / "out"), "--image-guidance", "-1"]) == 1
    assert "image_guidance must be above 0" in capsys.readouterr().err
    place = trained / "pretrain" / "model"
    given = SemHiTokMLLMProcessor.from_pretrained(place)
    model = SemHiTokForConditionalGeneration.from_pretrained(place)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"holds thesis\.tex: export to a new or empty folder"):
        export_language_model(model, given, tmp_path / "full", card="", provenance={})
    half = SemHiTokForConditionalGeneration.from_pretrained(place, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="must be in float32"):
        export_language_model(half, given, tmp_path / "out", card="", provenance={})
    headless = SemHiTokForConditionalGeneration.from_pretrained(place, encoder=False)
    with pytest.raises(ValueError, match="without its encoder side"):
        export_language_model(headless, given, tmp_path / "out", card="", provenance={})
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="must be all that follows the language model's final norm"):
        export_language_model(codes_mllm(), given, tmp_path / "out", card="", provenance={}, head="float8")
