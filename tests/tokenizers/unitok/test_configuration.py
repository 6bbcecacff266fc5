"""UniTok's configuration: the released sizes, derived values, contradictions, storage, and no field that nothing reads."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_unitok import SIZES
from transformers import AutoConfig, CLIPTextConfig

from semhitok.tokenizers import UniTokConfig, UniTokModel

SMALL: dict[str, Any] = {**SIZES, "width": 16, "codebook_size": 8}
TEXT: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": 12,
}


def small(**changes: Any) -> UniTokConfig:
    return UniTokConfig(**SMALL | changes)


def parameters(module: torch.nn.Module | None) -> int:
    assert module is not None
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_defaults_are_the_released_model():
    config = UniTokConfig()
    with torch.device("meta"):
        model = UniTokModel(config)
    millions = {name: round(parameters(getattr(model, name)) / 1e6, 1) for name in ("encoder", "decoder")}
    assert millions == {"encoder": 332.3, "decoder": 352.4}
    assert round(parameters(model.project_down) / 1e6, 1) == 3.2
    assert round(parameters(model.project_up) / 1e6, 1) == 7.6
    assert parameters(model.quantizer) == 8 * 4096 * 8
    assert (model.vocab_size, model.codes_per_token, model.num_tokens) == (4096, 8, 256)
    assert config.patch_size == 16
    assert model.project_down is not None
    assert model.project_down.map.attention.heads == 16


def test_what_is_derived_is_never_stored():
    config = small()
    assert (config.vocab_size, config.codes_per_token, config.channels) == (8, 4, 32)
    assert not {"vocab_size", "codes_per_token", "patch_size", "channels"} & set(config.to_dict())
    assert config.grid(32, 80) == (2, 5)


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    *[
        ({name: wrong}, f"^{name} must be a whole number of at least 1, got {wrong!r}")
        for name in (
            "image_size",
            "stem_width",
            "depth",
            "heads",
            "width",
            "num_codebooks",
            "codebook_size",
            "embed_dim",
        )
        for wrong in (0, 2.5, "8")
    ],
    ({"stage_widths": (8, 16)}, r"stage_widths needs 3 numbers, got \[8, 16\]"),
    ({"stage_depths": (1, 0)}, r"stage_depths\[1\] must be a whole number of at least 1, got 0"),
    ({"decoder_stage_depths": (1, 1, 1)}, "decoder_stage_depths needs 2 numbers"),
    ({"image_size": 40}, "image_size must be a multiple of 16, got 40"),
    ({"drop_path": 1.0}, r"drop_path must lie in \[0, 1\), got 1.0"),
    ({"heads": 5}, "32 channels do not split into 5 heads"),
    (
        {"quantizer": "fsq"},
        "quantizer must be one of multi_codebook, residual, ema, vanilla, normalized, none, got 'fsq'",
    ),
    ({"projection": "mlp"}, "projection must be one of attention, linear, none, got 'mlp'"),
    ({"num_codebooks": 3}, "16 channels cannot be split into 3 chunks of equal width"),
    ({"width": 12}, "attention projects to heads of 12 channels, which must divide the transformer's 32"),
    ({"width": 32}, "attention projects to heads of 32 channels"),
    ({"projection": "none"}, "set quantizer to none and width to 32, got multi_codebook and 16"),
    ({"projection": "none", "width": 32}, "set quantizer to none and width to 32, got multi_codebook and 32"),
    ({"projection_heads": 4}, r"projection_heads must divide 32 channels // width 16 = 2, got 4"),
    ({"projection_heads": 0}, "projection_heads must divide .*, got 0"),
    (
        {"projection_heads": 2, "projection": "linear"},
        "projection_heads belong to projection attention, got 2 with linear",
    ),
    ({"text_config": TEXT | {"projection_dim": 10}}, "text_config has projection_dim 10, embed_dim is 12"),
]


@pytest.mark.parametrize(("changes", "message"), CONTRADICTIONS)
def test_contradictions_are_refused_in_one_sentence(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as caught:
        small(**changes)
    assert "\n" not in str(caught.value)


def test_residual_needs_no_chunks_and_plain_clip_no_projection():
    assert small(quantizer="residual", num_codebooks=3).codes_per_token == 3
    assert small(quantizer="none", projection="none", width=32).width == 32


def test_stored_and_read_again(tmp_path: Path):
    config = small(text_config=TEXT, stages=["joint"], provenance={"licence": "MIT"}, projection_heads=1)
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "unitok"
    for loader in (UniTokConfig, AutoConfig):
        again = loader.from_pretrained(tmp_path)
        assert isinstance(again, UniTokConfig)
        assert isinstance(again.text_config, CLIPTextConfig)
        assert again.text_config.hidden_size == 8
        assert again.to_diff_dict() == config.to_diff_dict()
        assert (again.stages, again.provenance) == (["joint"], {"licence": "MIT"})


EFFECTS: dict[str, Any] = {
    "image_size": 64,
    "stem_width": 12,
    "stage_widths": (12, 16, 32),
    "stage_depths": (2, 1),
    "decoder_stage_depths": (1, 2),
    "depth": 2,
    "heads": 4,
    "drop_path": 0.3,
    "width": 8,
    "num_codebooks": 2,
    "codebook_size": 9,
    "quantizer": "residual",
    "projection": "linear",
    "projection_heads": 1,
    "embed_dim": 14,
    "text_config": TEXT,
    "encoder": False,
}


def test_every_field_changes_the_model():
    fields = set(inspect.signature(UniTokConfig.__init__).parameters) - {"self", "kwargs", "stages", "provenance"}
    assert set(EFFECTS) == fields, "a field that nothing reads is a defect"

    def built(**changes: Any) -> tuple[Any, ...]:
        model = UniTokModel(small(**{"depth": 2, "drop_path": 0.1} | changes))
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        heads = [getattr(module, "heads", getattr(module, "rate", 0)) for module in model.modules()]
        return shapes, heads, model.num_tokens, type(model.quantizer)

    plain = built()
    for name, value in EFFECTS.items():
        if name != "depth":
            assert built(**{name: value}) != plain, name
    assert built(depth=1) != plain
