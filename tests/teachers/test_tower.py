"""The teacher interface against transformers' own classes, tiny and random, saved to disk and loaded back."""

import json

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedConfig,
    PreTrainedModel,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from semhitok.teachers import Teacher, TeacherConfig
from semhitok.teachers.early_end import find_layers, input_of_layer
from semhitok.training.compilation import compile_blocks

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
SMALL_DINO = {
    "hidden_size": 32,
    "mlp_ratio": 2,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
TOWERS = {
    "siglip": (
        SiglipVisionModel,
        SiglipVisionConfig(**SMALL, image_size=48, patch_size=16),
        0,
    ),
    "siglip2": (
        Siglip2VisionModel,
        Siglip2VisionConfig(**SMALL, num_patches=9, patch_size=16),
        0,
    ),
    "clip": (
        CLIPVisionModel,
        CLIPVisionConfig(**SMALL, image_size=48, patch_size=16),
        1,
    ),
    "dinov2": (
        Dinov2Model,
        Dinov2Config(**SMALL_DINO, image_size=48, patch_size=16),
        1,
    ),
    "registers": (
        Dinov2WithRegistersModel,
        Dinov2WithRegistersConfig(**SMALL_DINO, image_size=48, patch_size=16, num_register_tokens=3),
        4,
    ),
}


@pytest.fixture(params=TOWERS)
def tower(request, tmp_path):
    """A saved tower: model, folder, tokens before the patches."""
    model_class, config, prefix = TOWERS[request.param]
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():  # position encodings and biases start near zero, where a mistake would not show
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    return model, tmp_path, prefix


def own_hidden_states(model, pixel_values, patch=16):
    """What the class itself gives for images in [-1,1], normalised here by hand."""
    channels = [((pixel_values[:, c] + 1) / 2 - MEAN[c]) / STD[c] for c in range(3)]
    images = torch.stack(channels, dim=1)
    with torch.no_grad():
        if isinstance(model, Siglip2VisionModel):
            rows, columns = images.shape[2] // patch, images.shape[3] // patch
            packed = [
                images[:, :, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].permute(0, 2, 3, 1).flatten(1)
                for r in range(rows)
                for c in range(columns)
            ]
            packed = torch.stack(packed, dim=1)
            shapes = torch.tensor([[rows, columns]] * len(images))
            output = model(packed, torch.ones(packed.shape[:2]), shapes, output_hidden_states=True)
        elif isinstance(model, (SiglipVisionModel, CLIPVisionModel)):
            output = model(images, interpolate_pos_encoding=True, output_hidden_states=True)
        else:
            output = model(images, output_hidden_states=True)
    return output.hidden_states


@pytest.mark.parametrize("size", [(48, 48), (32, 80), (64, 16), (55, 63)])
@pytest.mark.parametrize("layer", [-2, -1, 1])
def test_features_equal_the_class_own_hidden_states(tower, size, layer):
    model, folder, prefix = tower
    teacher = Teacher.from_pretrained(folder, layer=layer)
    pixel_values = torch.rand(2, 3, *size) * 2 - 1
    rows, columns = size[0] // 16, size[1] // 16
    expected = own_hidden_states(model, pixel_values[:, :, : rows * 16, : columns * 16])[layer][:, prefix:]
    features = teacher(pixel_values)
    assert (teacher.dim, teacher.stride, teacher.grid(*size)) == (
        32,
        16,
        (rows, columns),
    )
    assert features.shape == (2, rows * columns, 32)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


def test_reads_size_and_normalisation_from_the_checkpoint(tower):
    _, folder, _ = tower
    teacher = Teacher.from_pretrained(folder)
    assert (teacher.config.image_size, teacher.config.layer) == (48, -2)
    assert (teacher.config.image_mean, teacher.config.image_std) == (MEAN, STD)
    assert not teacher.config.normalize_features
    assert Teacher.from_pretrained(folder, image_size=64).config.image_size == 64


def test_the_last_layer_comes_before_the_final_norm(tower):
    model, folder, prefix = tower
    norm = next(getattr(model, name) for name in ("post_layernorm", "layernorm") if hasattr(model, name))
    pixel_values = torch.rand(1, 3, 48, 48) * 2 - 1
    features = Teacher.from_pretrained(folder, layer=-1)(pixel_values)
    class_output = own_hidden_states(model, pixel_values)[-1]
    assert not torch.allclose(features, norm(class_output)[:, prefix:], atol=1e-2)


@pytest.mark.parametrize("family", ["siglip", "clip"])
def test_a_model_with_two_halves_gives_its_vision_half(family, tmp_path):
    torch.manual_seed(0)
    text = {
        **SMALL,
        "vocab_size": 99,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vision = {**SMALL, "image_size": 48, "patch_size": 16}
    if family == "siglip":
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    else:
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision))
    model.eval().save_pretrained(tmp_path)
    teacher = Teacher.from_pretrained(tmp_path, image_mean=MEAN, image_std=STD)
    assert isinstance(teacher.backbone, SiglipVisionModel if family == "siglip" else CLIPVisionModel)
    pixel_values = torch.rand(2, 3, 48, 48) * 2 - 1
    images = torch.stack([((pixel_values[:, c] + 1) / 2 - MEAN[c]) / STD[c] for c in range(3)], dim=1)
    with torch.no_grad():
        expected = model.vision_model(images, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(
        teacher(pixel_values),
        expected[:, int(family == "clip") :],
        atol=1e-5,
        rtol=1e-5,
    )


def test_pixels_beyond_the_last_whole_patch_are_unseen(tmp_path):
    # The paper's 384 px at patch 14 leave 6 px over; here 52 = 3 * 14 + 10.
    config = SiglipVisionConfig(**SMALL, image_size=52, patch_size=14)
    teacher = Teacher(TeacherConfig(config, image_size=52))
    images = torch.rand(1, 3, 52, 52) * 2 - 1
    assert teacher.grid(52, 52) == (3, 3)
    assert teacher.grid(384, 384) == (27, 27)
    features = teacher(images)
    assert features.shape == (1, 9, 32)
    images[..., 42:] = 0
    assert torch.equal(teacher(images), features)
    with torch.no_grad():  # the class, fed the whole image, drops the same pixels
        expected = teacher.backbone(images, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


def test_is_frozen_and_always_in_eval_mode():
    config = SiglipVisionConfig(**SMALL, image_size=32, patch_size=16, attention_dropout=0.5)
    model = torch.nn.Sequential(Teacher(TeacherConfig(config)), torch.nn.Linear(32, 4)).train()
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    assert not any(module.training for module in model[0].modules())
    assert model.training
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == ["1.weight", "1.bias"]
    assert not model[0](images).requires_grad
    assert torch.equal(model[0](images), model[0](images))


def test_normalised_features_have_mean_zero_and_deviation_one():
    config = TeacherConfig()
    teacher = Teacher(config)
    features = teacher(torch.rand(2, 3, 64, 32) * 2 - 1)
    assert features.shape == (2, 8, 112)
    torch.testing.assert_close(features.mean(-1), torch.zeros(2, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.std(-1, correction=0), torch.ones(2, 8), atol=1e-2, rtol=0)
    plain = Teacher(TeacherConfig(normalize_features=False), teacher.backbone)
    expected = torch.nn.functional.layer_norm(plain(torch.ones(1, 3, 32, 32)), (112,))
    torch.testing.assert_close(teacher(torch.ones(1, 3, 32, 32)), expected)


def test_features_come_in_the_dtype_of_the_weights():
    teacher = Teacher(TeacherConfig())
    images = torch.rand(1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert teacher(images).dtype == torch.float32
    assert teacher.to(torch.bfloat16)(images).dtype == torch.bfloat16


class HolderConfig(PreTrainedConfig):
    """Nests a teacher, as a tokenizer's configuration does."""

    model_type = "teacher_holder"
    sub_configs = {"teacher_config": TeacherConfig}  # pyright: ignore

    def __init__(self, teacher_config=None, **kwargs):
        if isinstance(teacher_config, dict):
            teacher_config = TeacherConfig(**teacher_config)
        self.teacher_config = teacher_config or TeacherConfig()
        super().__init__(**kwargs)


class HolderModel(PreTrainedModel):
    """Holds a teacher, as a tokenizer does."""

    config_class = HolderConfig

    def __init__(self, config):
        super().__init__(config)
        self.teacher = Teacher(config.teacher_config)
        self.projection = torch.nn.Linear(self.teacher.dim, 4)
        self.post_init()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["built-in", *TOWERS])
def test_is_saved_and_loaded_inside_a_model(name, dtype, tmp_path):
    backbone = None if name == "built-in" else TOWERS[name][1]
    model = HolderModel(HolderConfig(TeacherConfig(backbone))).to(dtype)
    model.save_pretrained(tmp_path)
    loaded, report = HolderModel.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.teacher.backbone.dtype == dtype
    assert not any(parameter.requires_grad for parameter in loaded.teacher.parameters())
    assert not any(module.training for module in loaded.train().teacher.modules())
    images = torch.rand(1, 3, 48, 48)
    assert torch.equal(loaded.teacher(images), model.teacher(images))


def test_refuses_what_cannot_be_a_teacher(tmp_path):
    teacher = Teacher(TeacherConfig())
    with pytest.raises(ValueError, match="15x64 pixels is smaller"):
        teacher(torch.zeros(1, 3, 15, 64))
    with pytest.raises(ValueError, match="teacher has -4 to 3"):
        Teacher(TeacherConfig(SiglipVisionConfig(**SMALL), layer=-5))
    bert = BertConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        vocab_size=9,
    )
    BertModel(bert).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="'bert' cannot be a teacher"):
        Teacher.from_pretrained(tmp_path / "bert")
    SiglipVisionModel(SiglipVisionConfig(**SMALL)).save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="image_mean and image_std: pass both"):
        Teacher.from_pretrained(tmp_path / "bare")


def test_refuses_a_checkpoint_that_lacks_weights(tmp_path):
    model = SiglipVisionModel(SiglipVisionConfig(**SMALL, image_size=32, patch_size=16))
    state = {name: tensor for name, tensor in model.state_dict().items() if "layers.1" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=r"lacks weights.*layers\.1"):
        Teacher.from_pretrained(tmp_path, image_mean=MEAN, image_std=STD)


def test_refuses_a_tower_that_masks_its_patches():
    from transformers import ViTMAEConfig

    config = ViTMAEConfig(**SMALL, image_size=64, patch_size=16)
    with pytest.raises(ValueError, match="not one token for each of 4x4 patches"):
        Teacher(TeacherConfig(config))(torch.zeros(1, 3, 64, 64))


def test_what_comes_after_the_layer_is_not_computed(tower):
    """Nor kept, nor changed: the teacher's modules and its state stay what they are."""
    _, folder, _ = tower
    pixel_values = torch.rand(2, 3, 48, 48) * 2 - 1
    for layer, computed in ((-2, 2), (-1, 3), (1, 1), (0, 0)):
        teacher = Teacher.from_pretrained(folder, layer=layer)
        names, calls = list(teacher.state_dict()), []
        layers = teacher.backbone.get_submodule(find_layers(teacher.backbone, 3))
        for each in layers:
            each.register_forward_hook(lambda *given, calls=calls: calls.append(given))
        first = teacher(pixel_values)
        assert len(calls) == computed
        assert torch.equal(first, teacher(pixel_values))
        assert list(teacher.state_dict()) == names
        assert len(layers) == 3


def test_a_tower_whose_layers_are_not_found_is_run_as_a_whole(tower, monkeypatch):
    _, folder, _ = tower
    teacher, pixel_values = Teacher.from_pretrained(folder), torch.rand(2, 3, 48, 48) * 2 - 1
    found = teacher(pixel_values)
    monkeypatch.setattr("semhitok.teachers.tower.find_layers", lambda *given: None)
    assert torch.equal(found, teacher(pixel_values))


def test_layers_are_found_if_there_is_one_list_of_them():
    model = torch.nn.ModuleDict({"a": torch.nn.ModuleList([torch.nn.Identity()] * 2)})
    assert find_layers(model, 2) == "a"
    assert find_layers(model, 3) is None
    model["b"] = torch.nn.ModuleList([torch.nn.Identity()] * 2)
    assert find_layers(model, 2) is None
    with pytest.raises(ValueError, match="ModuleDict does not call its a"):
        input_of_layer(model, "a", 0, lambda run: None)


def test_a_compiled_layer_is_still_the_one_that_runs(tower):
    _, folder, _ = tower
    teacher, pixel_values = Teacher.from_pretrained(folder), torch.rand(2, 3, 48, 48) * 2 - 1
    expected, graphs = teacher(pixel_values), []
    compile_blocks(teacher, backend=lambda graph, _: graphs.append(graph) or graph)
    torch.testing.assert_close(teacher(pixel_values), expected)
    assert graphs
