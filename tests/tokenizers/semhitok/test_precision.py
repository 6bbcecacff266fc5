"""Codebooks stay in fp32, bit for bit, however the model is cast, and ids what they are unless it is; attention is SDPA and equals the plain formula."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import pixels, tiny_config, tiny_model
from torch import Tensor
from transformers import AutoModel

from semhitok.tokenizers import SemHiTokModel


@pytest.fixture(scope="module", params=["ema", "vanilla", "normalized"])
def model(request) -> SemHiTokModel:
    return tiny_model(semantic_quantizer=request.param)


@pytest.fixture(scope="module")
def folder(model: SemHiTokModel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    return folder


def quantizer_tensors(model: SemHiTokModel) -> dict[str, Tensor]:
    names = ("semantic.quantizer.", "pixel_quantizer.")
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith(names)}


def assert_codebooks_untouched(
    cast: SemHiTokModel, model: SemHiTokModel, dtype: torch.dtype, *, encoder_dtype: torch.dtype | None = None
) -> None:
    expected, found = quantizer_tensors(model), quantizer_tensors(cast)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32, name
        assert torch.equal(tensor, expected[name]), name
    for name, tensor in cast.state_dict().items():
        if name not in expected and tensor.is_floating_point():
            assert tensor.dtype == ((encoder_dtype or dtype) if name.startswith(model.encoder_side) else dtype), name


CASTS: dict[str, tuple[Callable[[SemHiTokModel], SemHiTokModel], torch.dtype]] = {
    "to(bfloat16)": (lambda model: model.to(torch.bfloat16), torch.bfloat16),
    "to(device, dtype)": (lambda model: model.to("cpu", torch.bfloat16), torch.bfloat16),
    "to(dtype=)": (lambda model: model.to(dtype=torch.float16), torch.float16),
    "half()": (lambda model: model.half(), torch.float16),
    "bfloat16()": (lambda model: model.bfloat16(), torch.bfloat16),
    "double()": (lambda model: model.double(), torch.float64),
    "twice": (lambda model: model.half().bfloat16(), torch.bfloat16),
    "there and back": (lambda model: model.bfloat16().float(), torch.float32),
    "in a parent": (lambda model: torch.nn.Sequential(model).to(torch.bfloat16)[0], torch.bfloat16),
}


@pytest.mark.parametrize("name", CASTS)
def test_cast(model: SemHiTokModel, name: str):
    cast, dtype = CASTS[name]
    assert_codebooks_untouched(cast(copy.deepcopy(model)), model, dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", torch.float16])
def test_from_pretrained(model: SemHiTokModel, folder: Path, dtype: torch.dtype | str):
    wanted = torch.bfloat16 if dtype == "bfloat16" else dtype
    ids = model.encode(pixels(8)).ids
    for loader in (SemHiTokModel, AutoModel):
        loaded = loader.from_pretrained(folder, dtype=dtype)
        assert_codebooks_untouched(loaded, model, wanted, encoder_dtype=torch.float32)
        assert torch.equal(loaded.encode(pixels(8)).ids, ids)
        assert loaded.decode(ids).dtype == wanted


def test_a_model_cast_saved_and_loaded(model: SemHiTokModel, tmp_path: Path):
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(tmp_path)
    loaded = SemHiTokModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert_codebooks_untouched(loaded, model, torch.bfloat16, encoder_dtype=torch.float32)
    back = SemHiTokModel.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(back.embedding_table(), model.embedding_table())


def test_built_under_another_default_dtype(model: SemHiTokModel):
    torch.set_default_dtype(torch.bfloat16)
    try:
        built = SemHiTokModel(model.config)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for tensor in quantizer_tensors(built).values()} == {torch.float32}
    assert built.pixel_decoder.project_in.weight.dtype == torch.bfloat16
    built.load_state_dict(model.state_dict())
    assert_codebooks_untouched(built, model, torch.bfloat16)


def test_a_cast_model_works_and_embeds_the_same_vectors(model: SemHiTokModel):
    cast, images = copy.deepcopy(model).to(torch.bfloat16), pixels(8)
    ids = model.encode(images).ids
    assert torch.equal(cast.embedding_table(), model.embedding_table())
    assert cast.embed(ids).pixel.dtype == torch.float32
    decoded = cast.decode(ids)
    assert decoded.dtype == torch.bfloat16
    torch.testing.assert_close(decoded.float(), model.decode(ids), atol=0.05, rtol=0)
    for pixel_values in (images, images.bfloat16()):  # fp32 images are what the image processor gives
        found = cast.encode(pixel_values).ids
        assert (found == ids).float().mean() > 0.9
        with torch.no_grad():
            assert torch.equal(cast.decode(found), cast(pixel_values).reconstruction.clamp(-1, 1))


def test_autocast_changes_no_semantic_lookup(model: SemHiTokModel):
    with torch.no_grad():
        vectors = model.semantic.projection(model.teacher_features(pixels(4)))
        expected = model.semantic.quantizer(vectors)
        with torch.autocast("cpu", torch.bfloat16):
            found = model.semantic.quantizer(vectors)
    assert torch.equal(found.ids, expected.ids)
    assert torch.equal(found.codes, expected.codes)


def test_autocast_changes_no_id(model: SemHiTokModel):
    """As ``Trainer(bf16=True)`` encodes, and as ``forward`` does in training."""
    images = pixels(32)
    ids = model.encode(images).ids
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.encode(images).ids, ids)
        assert torch.equal(model.encode_semantic(images).ids, ids // 4)
        assert torch.equal(model(images).ids // 4, ids // 4)


def test_sdpa_equals_the_plain_formula(monkeypatch: pytest.MonkeyPatch):
    model, images = tiny_model(), pixels(2)
    calls = []

    def eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(q.shape)
        return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v

    with torch.no_grad():
        expected = model(images)
        features = model.decode_semantic(expected.ids)
        monkeypatch.setattr(F, "scaled_dot_product_attention", eager)
        semantic_ids = expected.ids // 4
        found = model(images, semantic_ids)
        torch.testing.assert_close(model.decode_semantic(expected.ids), features, atol=1e-5, rtol=1e-5)
    config = model.config
    assert len(calls) == config.encoder_layers + config.decoder_layers + config.semantic_decoder_layers
    torch.testing.assert_close(found.pixel_features, expected.pixel_features, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.reconstruction, expected.reconstruction, atol=1e-4, rtol=1e-4)


def test_transformers_may_ask_for_sdpa_by_name(folder: Path):
    assert SemHiTokModel.from_pretrained(folder, attn_implementation="sdpa").config._attn_implementation == "sdpa"
    assert SemHiTokModel._from_config(tiny_config(), attn_implementation="sdpa") is not None
