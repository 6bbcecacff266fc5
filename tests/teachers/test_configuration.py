"""TeacherConfig: defaults by backbone, JSON round trips, nesting in another configuration."""

import pytest
from transformers import (
    AutoConfig,
    Dinov2WithRegistersConfig,
    PreTrainedConfig,
    SiglipVisionConfig,
)

from semhitok.teachers import EfficientNetLiteConfig, TeacherConfig


class Holder(PreTrainedConfig):
    """A configuration that nests a teacher, as a tokenizer's does."""

    model_type = "teacher_holder"
    sub_configs = {"teacher_config": TeacherConfig}  # pyright: ignore

    def __init__(self, teacher_config=None, **kwargs):
        if isinstance(teacher_config, dict):
            teacher_config = TeacherConfig(**teacher_config)
        self.teacher_config = teacher_config or TeacherConfig()
        super().__init__(**kwargs)


BACKBONES = [
    None,
    EfficientNetLiteConfig.lite2(num_blocks=4),
    SiglipVisionConfig(hidden_size=32, num_hidden_layers=3, image_size=48, patch_size=16),
    Dinov2WithRegistersConfig(hidden_size=32, num_hidden_layers=3, num_register_tokens=2),
]


def test_defaults_follow_the_backbone():
    built_in = TeacherConfig()
    assert isinstance(built_in.backbone_config, EfficientNetLiteConfig)
    assert (
        built_in.backbone_config.hidden_size,
        built_in.backbone_config.patch_size,
    ) == (112, 16)
    assert (built_in.layer, built_in.normalize_features) == (-1, True)
    assert built_in.image_mean == pytest.approx([127 / 255] * 3)
    tower = TeacherConfig(SiglipVisionConfig())
    assert (tower.layer, tower.normalize_features, tower.image_mean) == (
        -2,
        False,
        [0.5] * 3,
    )


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("nested", [False, True])
def test_round_trips_through_json(backbone, nested, tmp_path):
    # A layer and a flag that differ from the tower's defaults but equal the built-in teacher's must survive as well.
    config = TeacherConfig(
        backbone,
        image_size=56,
        layer=-1,
        image_std=(0.2, 0.3, 0.4),
        normalize_features=True,
    )
    saved = Holder(config) if nested else config
    saved.save_pretrained(tmp_path)
    loaded = type(saved).from_pretrained(tmp_path)
    again = loaded.teacher_config if nested else loaded
    assert isinstance(again, TeacherConfig)
    assert type(again.backbone_config) is type(config.backbone_config)
    assert again.backbone_config.to_dict() == config.backbone_config.to_dict()
    for field in (
        "image_size",
        "layer",
        "image_mean",
        "image_std",
        "normalize_features",
    ):
        assert getattr(again, field) == getattr(config, field)


def test_auto_config_knows_it(tmp_path):
    TeacherConfig(image_size=64).save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, TeacherConfig)
    assert loaded.image_size == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 0}, "image_size is 0"),
        ({"image_mean": [0.5]}, "three numbers"),
        ({"image_std": [0.5, 0.5, 0.0]}, "std above 0"),
        ({"layer": -2}, "num_blocks"),
        ({"backbone_config": {"hidden_size": 8}}, "model_type"),
    ],
)
def test_refuses_what_makes_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        TeacherConfig(**arguments)
