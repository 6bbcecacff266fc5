"""Loading in 8 or 4 bits touches the language model's layers alone; ids stay equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.mllm.tiny_mllm import codes_mllm, language_model, mixed_ids
from tests.tiny import pixels, tiny_model
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, GPTQConfig
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.quantizers.quantizers_utils import get_module_from_name, should_convert_module
from transformers.utils.quantization_config import QuantizationConfigMixin

from semhitok import SemHiTokModel
from semhitok.mllm import SemHiTokForConditionalGeneration

NAME = "semhitok_test_bytes"


@register_quantization_config(NAME)
class BytesConfig(QuantizationConfigMixin):
    def __init__(self, modules_to_not_convert: list[str] | None = None, **kwargs: Any) -> None:
        self.quant_method = NAME
        self.modules_to_not_convert = modules_to_not_convert


class BytesLinear(nn.Module):
    """As bitsandbytes has it: the weight is uint8, so that casting an input to its type ruins the input."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(linear.weight.shape, dtype=torch.uint8), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, (self.weight.to(x.dtype) - 128) / 100, self.bias)


class ToBytes(ConversionOps):
    def convert(self, input_dict: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        return {
            name: (tensor[0] * 100 + 128).round().clamp(0, 255).to(torch.uint8) for name, tensor in input_dict.items()
        }


@register_quantizer(NAME)
class BytesQuantizer(HfQuantizer):
    is_trainable = False

    def is_serializable(self) -> bool:
        return True

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        left_out = self.get_modules_to_not_convert(model, self.quantization_config.modules_to_not_convert)
        for name, module in list(model.named_modules()):
            if type(module) is nn.Linear and should_convert_module(name, left_out):
                with torch.device("meta"):
                    model.set_submodule(name, BytesLinear(module))

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        module, name = get_module_from_name(model, param_name)
        return not self.pre_quantized and isinstance(module, BytesLinear) and name == "weight"

    def get_quantize_ops(self) -> ToBytes:
        return ToBytes()


def linears(model: nn.Module, kind: type[nn.Module]) -> set[str]:
    return {name for name, module in model.named_modules() if type(module) is kind}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    sizes = {"hidden_size": 64, "intermediate_size": 64}  # 4-bit kernels for CPUs want multiples of 64
    SemHiTokForConditionalGeneration.from_language_model(language_model(**sizes), tiny_model()).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("given", [BytesConfig(), {"quant_method": NAME}, BytesConfig(["q_proj"])])
@pytest.mark.parametrize("loader", [SemHiTokForConditionalGeneration, AutoModelForImageTextToText])
def test_only_the_layers_of_the_language_model_are_quantized(saved: Path, tmp_path: Path, loader: Any, given: Any):
    whole, images = SemHiTokForConditionalGeneration.from_pretrained(saved), pixels(3)
    model = loader.from_pretrained(saved, quantization_config=given)
    wanted = {name for name in linears(whole, nn.Linear) if name.startswith("language_model.")}
    if isinstance(given, BytesConfig) and given.modules_to_not_convert:
        wanted = {name for name in wanted if not name.endswith("q_proj")}
    assert linears(model, BytesLinear) == wanted
    assert torch.equal(model.image_tokenizer.encode(images).ids, whole.image_tokenizer.encode(images).ids)
    ids = mixed_ids(model)
    with torch.no_grad():
        assert torch.equal(model.embed(ids), whole.embed(ids))
        logits = model(input_ids=ids).logits
    assert logits.isfinite().all()
    assert model.generate(ids[:, :3], generation_mode="image").shape == (2, 16)
    assert getattr(given, "modules_to_not_convert", None) in (None, ["q_proj"]), "the caller's own is not changed"
    model.save_pretrained(tmp_path)
    again = SemHiTokForConditionalGeneration.from_pretrained(tmp_path)
    assert linears(again, BytesLinear) == wanted
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, logits)


def test_several_codes_per_token_too(tmp_path: Path):
    model = codes_mllm()
    model.save_pretrained(tmp_path)
    loaded = SemHiTokForConditionalGeneration.from_pretrained(tmp_path, quantization_config=BytesConfig())
    assert {name.split(".")[0] for name in linears(loaded, BytesLinear)} == {"language_model"}
    assert loaded.generate(torch.tensor([[4, 5]]), generation_mode="image").shape == (1, 4, 3)


def test_the_bundled_model_and_its_shared_tokenizer():
    model = SemHiTokForConditionalGeneration.from_pretrained("mllm_nano", quantization_config=BytesConfig())
    assert {name.split(".")[0] for name in linears(model, BytesLinear)} == {"language_model"}
    tokenizer, images = SemHiTokModel.from_pretrained("nano"), pixels(1, size=model.config.tokenizer_config.image_size)
    assert torch.equal(model.image_tokenizer.encode(images).ids, tokenizer.encode(images).ids)


@pytest.mark.parametrize("bits", ["load_in_8bit", "load_in_4bit"])
def test_bitsandbytes(saved: Path, bits: str):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    kind = {"load_in_8bit": bitsandbytes.nn.Linear8bitLt, "load_in_4bit": bitsandbytes.nn.Linear4bit}[bits]
    whole, images = SemHiTokForConditionalGeneration.from_pretrained(saved), pixels(3)
    config = BitsAndBytesConfig(**{bits: True})
    model = SemHiTokForConditionalGeneration.from_pretrained(saved, quantization_config=config)
    assert linears(model, kind) == {name for name in linears(whole, nn.Linear) if name.startswith("language_model.")}
    assert torch.equal(model.image_tokenizer.encode(images).ids, whole.image_tokenizer.encode(images).ids)
    assert model.generate(torch.tensor([[4, 5]]), generation_mode="image").shape == (1, 16)


def test_what_cannot_leave_the_tokenizer_out_is_refused(saved: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="GPTQConfig cannot leave modules out"):
        SemHiTokForConditionalGeneration.from_pretrained(saved, quantization_config=GPTQConfig(bits=4))
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="an image tokenizer is not loaded in 8 or 4 bits"):
        SemHiTokModel.from_pretrained(tmp_path, quantization_config=BytesConfig())
