"""Every system of the comparison is a tokenizer like any other: stored ids, files, autocast, language model, inspection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.tiny import pixels
from tests.tiny_vit import SYSTEMS, tiny_vit, tiny_vit_config

from semhitok.tokenizers.fingerprint import tokenizer_fingerprint
from semhitok.tokenizers.loading import load_tokenizer
from semhitok.tokenizers.protocol import Tokenizer
from semhitok.tokenizers.settings import settings_of
from semhitok.tokenizers.vit_tokenizer import ViTTokenizerModel


@pytest.mark.parametrize("system", SYSTEMS)
def test_stored_ids_give_back_the_forward_pass(system: str):
    model, images = tiny_vit(system), pixels(3)
    assert isinstance(model, Tokenizer)
    with torch.no_grad():
        output = model(images)
    encoded = model.encode(images)
    assert torch.equal(encoded.ids, output.ids)
    assert encoded.ids.shape == ((3, 16) if model.codes_per_token == 1 else (3, 16, model.codes_per_token))
    assert encoded.ids.dtype == torch.int64
    assert 0 <= encoded.ids.min() <= encoded.ids.max() < model.vocab_size
    assert torch.equal(model.decode(encoded.ids, encoded.grid), output.reconstruction.clamp(-1, 1))
    embedded = model.embed(encoded.ids)
    parts = [embedded.pixel] if embedded.semantic is None else [embedded.semantic, embedded.pixel]
    assert torch.equal(torch.cat(parts, dim=-1), output.codes)


@pytest.mark.parametrize("system", SYSTEMS)
def test_files_bfloat16_and_autocast_keep_the_ids(system: str, tmp_path: Path):
    model, images = tiny_vit(system), pixels(3)
    ids = model.encode(images).ids
    model.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path).eval()
    assert type(loaded) is ViTTokenizerModel
    assert torch.equal(loaded.encode(images).ids, ids)
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loaded.encode(images).ids, ids)
    assert torch.equal(ViTTokenizerModel.from_pretrained(tmp_path, dtype=torch.bfloat16).eval().encode(images).ids, ids)
    decoder = load_tokenizer(tmp_path, encoder=False).eval()
    assert torch.equal(decoder.decode(ids), model.decode(ids))
    with pytest.raises(ValueError, match="without its encoder side"):
        decoder.encode(images)
    for names in (model.id_tensors, model.rounding.tensors):
        assert all(any(key.startswith(name) for key in model.state_dict()) for name in names)
    facts = settings_of(model)
    assert json.loads(json.dumps(facts))["system"] == system
    assert facts["bits_per_image"] in (192, 512)
    assert model.card_facts().name == f"{system} (comparison)"


@pytest.mark.parametrize("system", SYSTEMS)
def test_oblong_images_are_encoded_by_their_grid(system: str):
    model = tiny_vit(system)
    encoded = model.encode(torch.rand(2, 3, 16, 40) * 2 - 1)
    assert encoded.grid == (2, 5)
    assert model.decode(encoded.ids, encoded.grid).shape == (2, 3, 16, 40)


def test_the_semantic_decoder_reads_its_own_channels_and_the_pixel_decoder_its_own():
    model = tiny_vit("tokenflow")
    codes = torch.randn(2, 16, 40)
    other = codes.clone()
    other[..., 32:] += 1
    assert torch.equal(model.predict_features(codes, (4, 4)), model.predict_features(other, (4, 4)))
    assert not torch.equal(model.decoder(codes, (4, 4)), model.decoder(other, (4, 4)))
    other = codes.clone()
    other[..., :32] += 1
    assert torch.equal(model.decoder(codes, (4, 4)), model.decoder(other, (4, 4)))
    assert model.decode_semantic(model.encode(pixels(2)).ids).shape == (2, 16, 16)
    with pytest.raises(ValueError, match="has no semantic decoder"):
        tiny_vit("vqgan").decode_semantic(torch.zeros(1, 16, dtype=torch.long))


@pytest.mark.parametrize(
    ("system", "changes", "message"),
    [
        ("vqgan", {"quantizer": "median"}, "quantizer must be one of ema, vanilla, .*, got 'median'"),
        ("vqgan", {"image_size": 30}, "image_size 30 must be a multiple of patch_size 8"),
        ("vqgan", {"codebook_size": 0}, "codebook_size must be a whole number of at least 1, got 0"),
        ("vqgan", {"semantic_channels": 4}, "needs its input and its output: .*now 4.*now 0"),
        ("vqgan", {"pixel_channels": 9}, r"pixel_channels must be None or in \[1, code_dim 8\], got 9"),
        ("sde", {"teacher_config": None}, r"give semantic_dim \(now 8\) and teacher_config together"),
        ("rqvae", {"codes_per_token": 1}, "quantizer residual needs codes_per_token of at least 2, got 1"),
        ("toklip", {"target_dim": 18}, "target_dim 18 must split into semantic_decoder_heads 4"),
    ],
)
def test_configurations_that_contradict_themselves_are_refused(system: str, changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        tiny_vit_config(system, **changes)


def test_codes_that_the_quantizer_does_not_have_are_refused():
    with pytest.raises(
        ValueError, match="quantizer lfq has 1024 codes with these settings, but the configuration says 4096"
    ):
        tiny_vit("lfq", code_dim=10)
    with pytest.raises(ValueError, match="multiples of 8 pixels, got 32x36"):
        tiny_vit("vqgan").encode(torch.zeros(1, 3, 32, 36))
