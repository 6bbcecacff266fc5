"""Weights of every loader: their headers bound what is built, and values that are not numbers are refused by key."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.mllm.tiny_mllm import image_tokenizer, language_model, mllm, text_tokenizer
from tests.tiny import save_teacher, tiny_model
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from semhitok.evaluation.text_to_image.judge import FORMAT, Judge
from semhitok.losses import DinoDiscriminator
from semhitok.mllm import SemHiTokForConditionalGeneration
from semhitok.mllm.continuous import ContinuousProjector
from semhitok.runs.language_models import load_language_model
from semhitok.storage.configuration import DamagedFileError
from semhitok.storage.weights import StoredTensor, read_headers, weights_at_most
from semhitok.teachers import EfficientNetLiteConfig, Teacher
from semhitok.teachers.efficientnet import convert_efficientnet_lite
from semhitok.tokenizers import SemHiTokModel
from semhitok.tokenizers.unitok.released_names import Source, take

WRONG: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "nan": (lambda tensor: tensor.fill_(float("nan")), "keys with values that are not finite: "),
    "infinite": (lambda tensor: tensor.fill_(-float("inf")), "keys with values that are not finite: "),
    "integer": (lambda tensor: tensor.long(), "keys that are not of floating point: "),
    "complex": (lambda tensor: tensor.to(torch.complex64), "keys that are not of floating point: "),
}


def write_language_model(folder: Path) -> None:
    language_model().save_pretrained(folder)
    text_tokenizer().save_pretrained(folder)


def write_dino(folder: Path) -> None:
    config = Dinov2Config(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=70, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)


LOADERS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any], str]] = {
    "teacher": (save_teacher, Teacher.from_pretrained, "encoder.layers.0.mlp.fc1.weight"),
    "language model": (
        write_language_model,
        lambda at: load_language_model(str(at)),
        "model.layers.1.mlp.up_proj.weight",
    ),
    "part of a unified model": (
        write_language_model,
        lambda at: SemHiTokForConditionalGeneration.from_language_model(at, image_tokenizer()),
        "model.layers.0.self_attn.q_proj.bias",
    ),
    "discriminator": (
        write_dino,
        lambda at: DinoDiscriminator.from_pretrained(str(at), taps=(1,), image_size=70),
        "encoder.layer.1.attention.attention.query.weight",  # transformers calls it encoder.layer.1.attention.q_proj.weight
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    for name, (write, _, _) in LOADERS.items():
        write(folder / name)
    tiny_model().save_pretrained(folder / "tokenizer")
    return folder


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", LOADERS)
def test_weights_that_are_not_numbers_are_refused_by_key(name: str, wrong: str, good: Path, tmp_path: Path):
    folder, (_, load, key), (change, message) = tmp_path / "copy", LOADERS[name], WRONG[wrong]
    shutil.copytree(good / name, folder)
    tensors = load_file(folder / "model.safetensors")
    key = next(each for each in tensors if each.endswith(key.removeprefix("model.")))
    save_file(tensors | {key: change(tensors[key].clone())}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"the weights at {folder} do not match the model: {message}") as caught:
        load(folder)
    assert str(caught.value).count(",") == 0, "one key"
    assert key.removeprefix("model.").partition(".attention.")[0] in str(caught.value)


@pytest.mark.parametrize("name", [*LOADERS, "tokenizer"])
def test_a_pickle_in_place_of_weights_is_one_sentence(name: str, good: Path, tmp_path: Path):
    folder = tmp_path / "copy"
    shutil.copytree(good / name, folder)
    (folder / "model.safetensors").write_bytes(pickle.dumps({"a": Path("/tmp")}))
    load = SemHiTokModel.from_pretrained if name == "tokenizer" else LOADERS[name][1]
    with pytest.raises(DamagedFileError, match=rf"^{folder}/model\.safetensors is not a safetensors file: ") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("tokenizer", "semantic_codebook_size", 10**9),
        ("tokenizer", "subcodebook_size", 10**9),
        ("tokenizer", "decoder_layers", 10**6),
        ("tokenizer", "encoder_width", 10**12),
        ("teacher", "image_size", 10**9),
        ("teacher", "num_hidden_layers", 10**6),
        ("language model", "vocab_size", 10**10),
    ],
)
def test_sizes_far_beyond_the_file_are_refused_before_memory_is_taken(
    name: str, field: str, value: int, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, largest = tmp_path / "copy", [0]
    shutil.copytree(good / name, folder)
    config = json.loads((folder / "config.json").read_text()) | {field: value}
    (folder / "config.json").write_text(json.dumps(config))
    init = nn.Parameter.__new__

    def watched(cls: type, data: Tensor | None = None, requires_grad: bool = True) -> Any:
        if data is not None and not data.is_meta:
            largest[0] = max(largest[0], data.numel())
        return init(cls, data, requires_grad)

    monkeypatch.setattr(nn.Parameter, "__new__", watched)
    load = SemHiTokModel.from_pretrained if name == "tokenizer" else LOADERS[name][1]
    with pytest.raises(
        ValueError, match=f"the weights at {folder} do not match the model: its configuration describes more than"
    ):
        load(folder)
    assert largest[0] < 10**5


def test_a_model_may_have_twice_its_file_and_a_little_more(tmp_path: Path):
    stored = {"a": StoredTensor("F32", (2**26,))}
    with torch.device("meta"), weights_at_most(stored, "here"):
        nn.Linear(2**14, 2**13)
        with pytest.raises(ValueError, match="the weights at here do not match"):
            nn.Linear(2**14, 2**13)
    with torch.device("meta"), weights_at_most({}, "here"):
        nn.Linear(2**20, 2**20)
    with torch.device("meta"), weights_at_most(stored, "here"), weights_at_most(stored, "inside"):
        nn.Linear(2**13, 2**13)
    assert StoredTensor("U8", (2, 3)).values == 48, "eight numbers may be packed into each"
    assert read_headers([tmp_path / "nothing"]) == {}


def test_the_weights_of_the_built_in_teacher_are_checked_as_well(tmp_path: Path):
    path, config = tmp_path / "lite.pth", EfficientNetLiteConfig(num_blocks=1)
    torch.save({"_conv_stem.weight": torch.full((32, 3, 3, 3), float("nan"))}, path)
    with pytest.raises(ValueError, match=r"lite\.pth do not match the model: .* not finite: _conv_stem\.weight$"):
        convert_efficientnet_lite(path, config)
    torch.save({"_conv_stem.weight": torch.ones(2).long(), "_bn0.num_batches_tracked": torch.tensor(3)}, path)
    with pytest.raises(ValueError, match=r"not of floating point: _conv_stem\.weight$"):
        convert_efficientnet_lite(path, config)
    for content in (pickle.dumps({"a": Path("/tmp")}), b"nonsense", b""):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"lite\.pth does not hold the weights of an EfficientNet-Lite: "
        ) as caught:
            convert_efficientnet_lite(path, config)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_weights_that_are_converted_and_judges_are_checked_as_well(
    change: Callable[[Tensor], Tensor], message: str, tmp_path: Path
):
    with pytest.raises(ValueError, match=f"weights at released do not match the model: {message}theirs$"):
        take(
            Path("released"),
            {"ours": torch.Size([2])},
            lambda _: Source(("theirs",)),
            {"theirs": change(torch.ones(2))},
        )
    document = {"format": FORMAT, "concepts": ["a"], "fingerprint": "f", "features": "p"}
    path = tmp_path / "judge.safetensors"
    save_file({"head.mix.bias": change(torch.ones(2))}, path, metadata={"judge": json.dumps(document)})
    with pytest.raises(ValueError, match=rf"judge\.safetensors do not match the model: {message}head\.mix\.bias$"):
        Judge.load(path)


def test_the_projector_of_a_language_model_is_checked_as_well(tmp_path: Path):
    model = mllm()
    ContinuousProjector.for_model(model).save(tmp_path)
    assert ContinuousProjector.load(tmp_path, model) is not None
    path = tmp_path / "continuous_projector.safetensors"
    tensors = load_file(path)
    key = sorted(tensors)[0]
    for change, message in WRONG.values():
        save_file(tensors | {key: change(tensors[key].clone())}, path)
        with pytest.raises(ValueError, match=f"{message}{key}$"):
            ContinuousProjector.load(tmp_path, model)
    save_file({key: tensors[key]}, path)
    with pytest.raises(ValueError, match=f"{path} cannot be loaded: .*Missing key"):
        ContinuousProjector.load(tmp_path, model)
