"""The configuration: derived sizes, contradictions, storage, and no field that nothing reads."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import pixels, tiny_config, tower_config
from transformers import Dinov2WithRegistersConfig

from semhitok.teachers import TeacherConfig
from semhitok.tokenizers import SemHiTokConfig, SemHiTokModel

FIELDS = [name for name in inspect.signature(SemHiTokConfig.__init__).parameters if name not in ("self", "kwargs")]


def test_the_defaults_are_the_papers_256_px_model():
    config = SemHiTokConfig()
    assert config.vocab_size == 196_608
    assert config.grid(256, 256) == (16, 16)
    assert config.semantic_dim == 48
    assert (config.encoder_layers, config.encoder_width, config.decoder_heads) == (12, 768, 12)


def test_the_vocabulary_is_derived_and_never_stored():
    config = tiny_config(semantic_codebook_size=10, subcodebook_size=7)
    assert config.vocab_size == 70
    assert "vocab_size" not in config.to_dict()
    with pytest.raises(AttributeError):
        config.vocab_size = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("size", "grid"), [((32, 32), (4, 4)), ((40, 24), (5, 3)), ((39, 47), (4, 5)), ((8, 15), (1, 1))]
)
def test_the_grid_is_rounded_down(size: tuple[int, int], grid: tuple[int, int]):
    assert tiny_config().grid(*size) == grid


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    *[
        ({name: wrong}, f"^{name} must be a whole number of at least 1, got {wrong!r}")
        for name in FIELDS
        if name.endswith(("size", "dim", "layers", "width", "heads"))
        for wrong in (0, 2.5)
    ],
    ({"image_size": "big"}, "image_size must be a whole number of at least 1, got 'big'"),
    ({"refine_channels": -1}, "refine_channels must be a whole number of at least 0, got -1"),
    ({"semantic_decay": 1.0}, r"semantic_decay must lie in \[0, 1\), got 1.0"),
    ({"semantic_decay": -0.1}, r"semantic_decay must lie in \[0, 1\), got -0.1"),
    ({"semantic_quantizer": "fsq"}, "semantic_quantizer must be one of ema, vanilla, normalized, got 'fsq'"),
    ({"semantic_update_rule": "mean"}, "semantic_update_rule must be one of sum_count, batch_mean, got 'mean'"),
    ({"concat": "sum"}, "concat must be one of dim, length, none, semantic, got 'sum'"),
    ({"patch_size": 64}, "patch_size 64 is larger than image_size 32"),
    ({"encoder_heads": 3}, "encoder_width 16 must split into encoder_heads 3 heads"),
    ({"decoder_heads": 8}, "decoder_width 16 must split into decoder_heads 8 heads of a multiple of 4 channels"),
    ({"teacher_config": {"image_size": 32}, "encoder_width": 18}, "encoder_width 18 must split"),
]


@pytest.mark.parametrize(("changes", "message"), CONTRADICTIONS)
def test_contradictions_are_refused_in_one_sentence(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as caught:
        tiny_config(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"semantic_decoder_heads": 3}, "16 channels must split into semantic_decoder_heads 3 heads"),
        (
            {"teacher_config": TeacherConfig(tower_config(), image_size=40)},
            "teacher's grid 5x5 does not match the token grid 4x4 of a 32x32 image with patch_size 8.*now 40",
        ),
    ],
)
def test_contradictions_with_the_teacher_are_refused_by_the_model(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as caught:
        SemHiTokModel(tiny_config(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "teacher",
    [
        TeacherConfig(),
        TeacherConfig(tower_config(48, 16), image_size=48, layer=-1, image_mean=[0.4, 0.5, 0.6]),
        TeacherConfig(Dinov2WithRegistersConfig(hidden_size=16, patch_size=8), image_size=32, normalize_features=True),
    ],
)
def test_json_round_trip_with_the_teacher(tmp_path: Path, teacher: TeacherConfig):
    config = tiny_config(
        teacher_config=teacher,
        semantic_quantizer="normalized",
        semantic_update_rule="batch_mean",
        semantic_decay=0.5,
        concat="length",
        encoder=False,
        stages=["semantic", "pixel"],
        provenance={"pixel": {"data": "photographs", "steps": 3}},
    )
    config.save_pretrained(tmp_path)
    loaded = SemHiTokConfig.from_pretrained(tmp_path)
    for name in FIELDS:
        if name != "teacher_config":
            assert getattr(loaded, name) == getattr(config, name), name
    assert isinstance(loaded.teacher_config, TeacherConfig)
    assert type(loaded.teacher_config.backbone_config) is type(teacher.backbone_config)
    for name in ("image_size", "layer", "image_mean", "image_std", "normalize_features"):
        assert getattr(loaded.teacher_config, name) == getattr(teacher, name), name
    assert loaded.teacher_config.backbone_config.to_diff_dict() == teacher.backbone_config.to_diff_dict()
    again = SemHiTokConfig.from_dict(json.loads(loaded.to_json_string()))
    assert again.to_json_string() == loaded.to_json_string()


def test_configurations_do_not_share_their_lists():
    one, other = tiny_config(), tiny_config()
    one.stages.append("semantic")
    one.provenance["semantic"] = {}
    assert (other.stages, other.provenance) == ([], {})


def test_every_field_is_read(monkeypatch: pytest.MonkeyPatch):
    """By building the model and passing an image through it; what training writes and ``inspect`` shows aside."""
    read: set[str] = set()
    config = tiny_config()

    def record(self, name: str):
        read.add(name)
        return object.__getattribute__(self, name)

    monkeypatch.setattr(SemHiTokConfig, "__getattribute__", record)
    model = SemHiTokModel(config)
    with torch.no_grad():
        model(pixels(1))
        model.decode(torch.zeros(1, 16, dtype=torch.long))
    assert set(FIELDS) - read == {"stages", "provenance"}
