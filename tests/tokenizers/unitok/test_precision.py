"""Quantizer, projections and image head stay in fp32 and compute in it, however the model is cast or called."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from tests.tiny import pixels
from tests.tokenizers.unitok.tiny import tiny
from torch import Tensor, nn
from transformers import AutoModel

from semhitok.tokenizers import UniTokModel

EXACT = ("quantizer.", "project_down.", "project_up.", "image_head.")
CASTS: dict[str, tuple[Callable[[UniTokModel], UniTokModel], torch.dtype]] = {
    "to(bfloat16)": (lambda model: model.to(torch.bfloat16), torch.bfloat16),
    "to(dtype=)": (lambda model: model.to(dtype=torch.float16), torch.float16),
    "half()": (lambda model: model.half(), torch.float16),
    "double()": (lambda model: model.double(), torch.float64),
    "in a parent": (lambda model: nn.Sequential(model).to(torch.bfloat16)[0], torch.bfloat16),
}


@pytest.fixture(scope="module", params=["multi_codebook", "residual"])
def model(request) -> UniTokModel:
    model = tiny(quantizer=request.param)
    with torch.no_grad():
        model.quantizer.initialise(model.features(pixels(6, seed=2, size=64)).flatten(0, 1), seed=0)
    return model


def assert_exact_parts_untouched(cast: UniTokModel, model: UniTokModel, dtype: torch.dtype) -> None:
    expected = model.state_dict()
    for name, tensor in cast.state_dict().items():
        if name.startswith(EXACT):
            assert tensor.dtype == torch.float32, name
            assert torch.equal(tensor, expected[name]), name
        elif tensor.is_floating_point():
            assert tensor.dtype == dtype, name


@pytest.mark.parametrize("name", CASTS)
def test_cast(model: UniTokModel, name: str):
    cast, dtype = CASTS[name]
    assert_exact_parts_untouched(cast(copy.deepcopy(model)), model, dtype)


def test_from_pretrained_in_bfloat16(model: UniTokModel, tmp_path):
    model.save_pretrained(tmp_path)
    for loader in (UniTokModel, AutoModel):
        assert_exact_parts_untouched(loader.from_pretrained(tmp_path, dtype=torch.bfloat16), model, torch.bfloat16)


def test_built_under_another_default_dtype(model: UniTokModel):
    torch.set_default_dtype(torch.bfloat16)
    try:
        built = UniTokModel(model.config)
    finally:
        torch.set_default_dtype(torch.float32)
    built.load_state_dict(model.state_dict())
    assert_exact_parts_untouched(built, model, torch.bfloat16)


def test_autocast_changes_nothing_between_encoder_and_decoder(model: UniTokModel):
    assert model.encoder is not None
    assert model.project_down is not None
    assert model.image_head is not None

    def exact_path(tokens: Tensor) -> list[Tensor]:
        features = model.project_down(tokens)
        quantized = model.quantizer(features)
        raised = model.project_up(quantized.codes)
        return [features, quantized.ids, quantized.codes, *quantized.losses.values(), raised, model.image_head(raised)]

    with torch.no_grad():
        tokens = model.encoder(pixels(4, size=64))
        expected = exact_path(tokens)
        with torch.autocast("cpu", torch.bfloat16):
            found = exact_path(tokens)
            cast = model.decode(expected[1])
        plain = model.decode(expected[1])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    assert not torch.equal(cast.float(), plain)  # the decoder does run in bf16
    assert (cast.float() - plain).abs().mean() < 0.02 < plain.std() / 5


def test_under_autocast_there_is_still_one_path_and_ids_stay(model: UniTokModel):
    images = pixels(3, seed=5, size=64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output, encoded = model(images), model.encode(images)
        assert torch.equal(encoded.ids, output.ids)
        assert torch.equal(model.decode(encoded.ids), output.reconstruction.clamp(-1, 1))
    assert torch.equal(model.encode(images).ids, encoded.ids)
    training = copy.deepcopy(model).train()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(training.features(images), model.features(images))  # there the encoder does run in bf16


def test_a_cast_model_works(model: UniTokModel):
    cast, images = copy.deepcopy(model).to(torch.bfloat16), pixels(3, seed=5, size=64)
    ids = model.encode(images).ids
    assert torch.equal(cast.embed(ids).pixel, model.embed(ids).pixel)
    assert (cast.decode(ids).float() - model.decode(ids)).abs().mean() < 0.02 < model.decode(ids).std() / 5
    for pixel_values in (images, images.bfloat16()):
        found = cast.encode(pixel_values).ids
        assert (found == ids).float().mean() > 0.8
        with torch.no_grad():
            assert torch.equal(cast.decode(found), cast(pixel_values).reconstruction.clamp(-1, 1))
            assert cast.text_embedding(torch.tensor([[5, 49407]])).dtype == torch.float32
