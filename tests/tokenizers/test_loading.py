"""Saving and loading: the same ids, strict keys, Auto classes, without the encoder side, shipped names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import pixels, tiny_model
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel, SiglipVisionModel

from semhitok.teachers import Teacher
from semhitok.tokenizers import SemHiTokConfig, SemHiTokModel, TokenizerImageProcessor, checkpoints


@pytest.fixture(scope="module")
def model() -> SemHiTokModel:
    return tiny_model()


@pytest.fixture(scope="module")
def saved(model: SemHiTokModel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def damage(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_folder_holds_safetensors_configuration_and_image_processor(saved: Path):
    assert {path.name for path in saved.iterdir()} == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert json.loads((saved / "config.json").read_text())["model_type"] == "semhitok"


def test_ids_and_images_are_equal_after_saving_and_loading(model: SemHiTokModel, saved: Path):
    images = pixels(8, seed=11)
    loaded = SemHiTokModel.from_pretrained(saved)
    assert not loaded.training
    encoded = model.encode(images)
    assert torch.equal(loaded.encode(images).ids, encoded.ids)
    assert torch.equal(loaded.decode(encoded.ids), model.decode(encoded.ids))
    assert torch.equal(loaded.embedding_table(), model.embedding_table())
    order = torch.randperm(8)
    assert torch.equal(loaded.encode(images[order]).ids, encoded.ids[order])


def test_auto_classes(model: SemHiTokModel, saved: Path):
    assert isinstance(AutoConfig.from_pretrained(saved), SemHiTokConfig)
    loaded = AutoModel.from_pretrained(saved)
    assert isinstance(loaded, SemHiTokModel)
    processor = AutoImageProcessor.from_pretrained(saved)
    assert isinstance(processor, TokenizerImageProcessor)
    assert processor.size == model.config.image_size
    assert torch.equal(loaded.encode(pixels(1)).ids, model.encode(pixels(1)).ids)


def test_without_the_encoder_side(model: SemHiTokModel, saved: Path, tmp_path: Path):
    ids = model.encode(pixels(2)).ids
    decoder = SemHiTokModel.from_pretrained(saved, encoder=False)
    assert decoder.teacher is None
    assert decoder.pixel_encoder is None
    assert sum(p.numel() for p in decoder.parameters()) < sum(p.numel() for p in model.parameters())
    assert torch.equal(decoder.decode(ids), model.decode(ids))
    assert torch.equal(decoder.embedding_table(), model.embedding_table())
    assert torch.equal(decoder.decode_semantic(ids), model.decode_semantic(ids))
    for call in (decoder.encode, decoder.forward, decoder.pixel_features, decoder.teacher_features):
        with pytest.raises(ValueError, match=r"loaded without its encoder side \(encoder=False\)") as caught:
            call(pixels(2))
        assert "\n" not in str(caught.value)
    decoder.save_pretrained(tmp_path)  # what is left can be saved and is still strict
    again = SemHiTokModel.from_pretrained(tmp_path)
    assert torch.equal(again.decode(ids), model.decode(ids))
    with pytest.raises(ValueError, match=r"missing keys: .*pixel_encoder"):
        SemHiTokModel.from_pretrained(tmp_path, encoder=True)


def test_a_decoder_alone_is_loaded_as_strictly(folder: Path):
    damage(folder, lambda tensors: tensors.pop("pixel_decoder.head.project.weight"))
    with pytest.raises(ValueError, match=r"missing keys: pixel_decoder\.head\.project\.weight$"):
        SemHiTokModel.from_pretrained(folder, encoder=False)


DAMAGE: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (
        lambda tensors: tensors.pop("pixel_quantizer.codebook_KmD"),
        r"do not match the model: missing keys: pixel_quantizer\.codebook_KmD$",
    ),
    "missing buffer": (
        lambda tensors: tensors.pop("semantic.quantizer.counts_K"),
        r"missing keys: semantic\.quantizer\.counts_K$",
    ),
    "missing teacher": (
        lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("teacher.")],
        r"missing keys: teacher\..* \.\.\.$",
    ),
    "extra": (
        lambda tensors: tensors.update({"pixel_decoder.extra": torch.zeros(3)}),
        r"unexpected keys: pixel_decoder\.extra$",
    ),
    "misshapen": (
        lambda tensors: tensors.update({"semantic.quantizer.codebook_KD": torch.zeros(16, 7)}),
        r"keys of another shape: semantic\.quantizer\.codebook_KD$",
    ),
    "not a number": (
        lambda tensors: tensors["pixel_quantizer.codebook_KmD"][3, 1].fill_(float("nan")),
        r"keys with values that are not finite: pixel_quantizer\.codebook_KmD$",
    ),
    "infinite": (
        lambda tensors: tensors["pixel_decoder.project_in.weight"][3, 1].fill_(-float("inf")),
        r"keys with values that are not finite: pixel_decoder\.project_in\.weight$",
    ),
    "beyond the precision": (
        lambda tensors: tensors.update(
            {"pixel_decoder.project_in.bias": torch.full((16,), 1e300, dtype=torch.float64)}
        ),
        r"keys with values that are not finite: pixel_decoder\.project_in\.bias$",
    ),
    **{
        str(kind): (
            lambda tensors, kind=kind: tensors.update(
                {"semantic.quantizer.codebook_KD": torch.ones(16, 6, dtype=kind)}
            ),
            r"keys that are not of floating point: semantic\.quantizer\.codebook_KD$",
        )
        for kind in (torch.int64, torch.uint8, torch.bool, torch.complex64)
    },
    "all at once": (
        lambda tensors: tensors.update(
            {
                "pixel_decoder.project_in.bias": torch.zeros(2),
                "nonsense": tensors.pop("pixel_decoder.project_in.weight"),
            }
        ),
        r"missing keys: pixel_decoder\.project_in\.weight; unexpected keys: nonsense; "
        r"keys of another shape: pixel_decoder\.project_in\.bias$",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("loader", [SemHiTokModel, AutoModel])
def test_keys_that_do_not_fit_are_named(folder: Path, name: str, loader: type):
    change, message = DAMAGE[name]
    damage(folder, change)
    with pytest.raises(ValueError, match=message) as caught:
        loader.from_pretrained(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_index_of_shards_stays_in_its_folder(saved: Path, folder: Path, tmp_path: Path):
    weights = load_file(folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "a.safetensors")}
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert (
        SemHiTokModel.from_pretrained(folder).num_parameters() == SemHiTokModel.from_pretrained(saved).num_parameters()
    )
    save_file(weights | {"pixel_quantizer.codebook_KmD": torch.ones(16, 4, 4).long()}, folder / "a.safetensors")
    with pytest.raises(ValueError, match=r"not of floating point: pixel_quantizer\.codebook_KmD$"):
        SemHiTokModel.from_pretrained(folder)
    shutil.copy(saved / "model.safetensors", tmp_path / "outside.safetensors")
    for outside in ("../outside.safetensors", "x/../../outside.safetensors", str(tmp_path / "outside.safetensors")):
        index["weight_map"]["pixel_quantizer.codebook_KmD"] = outside
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match=rf"index\.json points outside its folder, at {outside}: all weights must"):
            SemHiTokModel.from_pretrained(folder)
    for damaged in ("{}", "[]", '{"weight_map": {"a": 3}}', '{"weight_map": '):
        (folder / "model.safetensors.index.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"index\.json must map keys to files, as weight_map"):
            SemHiTokModel.from_pretrained(folder)


def test_an_adapter_does_not_lead_to_the_weights_of_another_folder(folder: Path, tmp_path: Path):
    tiny_model(seed=5).save_pretrained(tmp_path / "other")
    adapter = {"base_model_name_or_path": str(tmp_path / "other"), "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(ValueError, match=f"{folder} holds a PEFT adapter of another model"):
        SemHiTokModel.from_pretrained(folder)


def test_a_configuration_of_other_sizes_is_named(folder: Path):
    config = json.loads((folder / "config.json").read_text()) | {"subcodebook_size": 8}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"keys of another shape: pixel_quantizer\.codebook_KmD$"):
        SemHiTokModel.from_pretrained(folder)


def test_a_configuration_that_contradicts_itself_is_one_sentence(folder: Path):
    config = json.loads((folder / "config.json").read_text()) | {"decoder_heads": 3}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="decoder_width 16 must split into decoder_heads 3"):
        SemHiTokModel.from_pretrained(folder)


def test_another_class_of_model_is_refused(model: SemHiTokModel, tmp_path: Path):
    assert isinstance(model.teacher.backbone, SiglipVisionModel)
    model.teacher.backbone.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a model of type 'siglip_vision_model', expected 'semhitok'"):
        SemHiTokModel.from_pretrained(tmp_path)


def test_paths_that_hold_nothing(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} is not a checkpoint: it has no config.json"):
        SemHiTokModel.from_pretrained(tmp_path)
    for name in (tmp_path / "nothing", "nowhere", "./here/there"):
        with pytest.raises(
            FileNotFoundError, match=r"no checkpoint at .*: expected a folder, a hub id or a bundled name"
        ):
            SemHiTokModel.from_pretrained(name)


def test_loading_information_on_request(saved: Path):
    model, info = SemHiTokModel.from_pretrained(saved, output_loading_info=True)
    assert isinstance(model, SemHiTokModel)
    assert not info["missing_keys"]


def test_shipped_names(model: SemHiTokModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "BUNDLED", tmp_path)
    (tmp_path / "half").mkdir()  # no configuration: not a checkpoint
    for name in ("mini", "small"):
        model.save_pretrained(tmp_path / name)
    assert checkpoints.builtin_names() == ["mini", "small"]
    for loaded in (SemHiTokModel.from_pretrained(), SemHiTokModel.from_pretrained("small")):
        assert torch.equal(loaded.embedding_table(), model.embedding_table())
    with pytest.raises(FileNotFoundError, match=r"bundled name \(mini, small\)"):
        SemHiTokModel.from_pretrained("medium")
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(tmp_path / "mini")
    assert checkpoints.builtin_checkpoint("small") == "small", "a folder of that name comes first"


def test_from_teacher_takes_its_weights_and_configuration(model: SemHiTokModel):
    assert model.teacher is not None
    teacher: Teacher = model.teacher
    other = tiny_model(seed=5)
    built = SemHiTokModel.from_teacher(teacher, other.config)
    images = pixels(2)
    assert built.config.teacher_config is teacher.config
    assert torch.equal(built.teacher_features(images), model.teacher_features(images))
    assert not torch.equal(other.teacher_features(images), model.teacher_features(images))
