"""One loader for both kinds, and what it says a checkpoint is."""

from __future__ import annotations

import json
import math

import pytest
import torch
from tests.tiny import pixels, tiny_model
from tests.tiny_unitok import tiny_unitok

from semhitok.tokenizers import SemHiTokModel, UniTokModel
from semhitok.tokenizers.loading import load_tokenizer
from semhitok.tokenizers.settings import settings_of


@pytest.mark.parametrize(("make", "kind"), [(tiny_model, SemHiTokModel), (tiny_unitok, UniTokModel)])
def test_the_checkpoint_says_what_it_is(make, kind, tmp_path):
    model = make()
    model.save_pretrained(tmp_path / "m")
    loaded = load_tokenizer(tmp_path / "m").eval()
    assert isinstance(loaded, kind)
    ids = model.encode(pixels(3)).ids
    assert torch.equal(loaded.encode(pixels(3)).ids, ids)
    decoder = load_tokenizer(str(tmp_path / "m"), encoder=False).eval()
    assert not decoder.config.encoder
    assert torch.equal(decoder.decode(ids), model.decode(ids))
    dtypes = {parameter.dtype for parameter in load_tokenizer(tmp_path / "m", dtype=torch.bfloat16).parameters()}
    assert dtypes == {torch.bfloat16, torch.float32}  # codebooks stay as they are


def test_shipped_names():
    assert isinstance(load_tokenizer("nano"), SemHiTokModel)


def test_what_is_no_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="holds a model of type 'vit', expected 'semhitok' or 'unitok'"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="of type None"):
        load_tokenizer(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_tokenizer(tmp_path / "nosuch")


@pytest.mark.parametrize("model", [tiny_model(), tiny_unitok(), tiny_unitok(text=False), tiny_unitok(encoder=False)])
def test_settings(model):
    facts = settings_of(model)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["parameters"]["all"] == sum(parameter.numel() for parameter in model.parameters())
    assert facts["parameters"]["all"] == sum(n for part, n in facts["parameters"].items() if part != "all")
    ids = model.num_tokens * model.codes_per_token
    assert facts["bits_per_image"] == pytest.approx(ids * math.log2(model.vocab_size))
    assert (facts["type"], facts["codes_per_token"]) == (model.config.model_type, model.codes_per_token)
