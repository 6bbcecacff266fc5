"""Rows and columns of tokens in the input embeddings: in one pass, from step to step, saved and absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.mllm.tiny_mllm import TEXT_SIZE, codes_mllm, image_tokenizer, language_model, mixed_ids, mllm
from tests.tiny import shake
from torch import Tensor

from semhitok.mllm import Sampling, SemHiTokForConditionalGeneration
from semhitok.mllm.image_positions import index_in_image, tokens_at_end

GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module")
def model() -> SemHiTokForConditionalGeneration:
    return mllm(image_positions=True)


def test_each_token_gets_its_row_and_its_column():
    model = mllm(image_positions=True)
    ids = torch.cat([mixed_ids(model), mixed_ids(model, seed=1)], dim=1)
    found = model.embed(ids)
    assert model.image_positions is not None
    row, column = model.image_positions.row, model.image_positions.column
    model.image_positions = None
    wanted = model.embed(ids)
    for begin in (4, 4 + ids.shape[1] // 2):
        for place in range(16):
            wanted[:, begin + place] += row[place // 4] + column[place % 4]
    torch.testing.assert_close(found, wanted)


def test_with_several_codes_too():
    model = codes_mllm(image_positions=True)
    vocabulary = model.vocabulary
    codes = torch.randint(5, (1, 4, 3), generator=torch.Generator().manual_seed(0))
    assert model.image_positions is not None
    row, column = model.image_positions.row, model.image_positions.column
    ids = vocabulary.span(codes)
    found = model.embed(ids, torch.nn.functional.pad(codes, (0, 0, 1, 1)))[0, 1:5]
    places = torch.stack([row[0] + column[0], row[0] + column[1], row[1] + column[0], row[1] + column[1]])
    torch.testing.assert_close(found, model.embed_visual(codes[0]) + places)


def test_numbers_within_images_by_hand():
    visual = torch.tensor([[1, 1, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1]], dtype=torch.bool)
    assert index_in_image(visual, 4)[visual].tolist() == [0, 1, 0, 1, 2, 3, 0, 1, 2, 3, 0]
    before = torch.tensor([2, 3])
    assert index_in_image(visual, 4, before)[visual].tolist() == [2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert torch.equal(tokens_at_end(visual, 4), torch.tensor([0, 1]))
    assert torch.equal(tokens_at_end(visual[:, :2], 4, before), torch.tensor([0, 0]))
    assert torch.equal(tokens_at_end(visual[:, :1], 4, before), torch.tensor([3, 0]))
    assert tokens_at_end(visual[:, :0], 4, before) is before


@pytest.mark.parametrize("size", [1, 3, 7])
def test_passes_with_a_cache_continue_within_an_image(model: SemHiTokForConditionalGeneration, size: int):
    ids, cache, found = mixed_ids(model, 3), None, []
    with torch.no_grad():
        wanted = model(ids).logits
        for part in ids.split(size, dim=1):
            outputs = model(part, past_key_values=cache, use_cache=True)
            cache = outputs.past_key_values
            found.append(outputs.logits)
    torch.testing.assert_close(torch.cat(found, dim=1), wanted)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_images_by_all_ways_are_those_of_whole_passes(model: SemHiTokForConditionalGeneration, guidance: float):
    prompt, begin = torch.tensor([[5, 6, 7]]), torch.tensor([[model.vocabulary.image_begin_id]])
    chosen = torch.zeros(1, 0, dtype=torch.long)
    for _ in range(16):
        with torch.no_grad():
            conditional, unconditional = (
                model(torch.cat([*before, begin, chosen + TEXT_SIZE], dim=1)).logits[:, -1, TEXT_SIZE : TEXT_SIZE + 64]
                for before in ([prompt], [])
            )
        guided = unconditional + guidance * (conditional - unconditional)
        chosen = torch.cat([chosen, guided.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(model.generate_images(prompt, guidance=guidance, sampling=GREEDY), chosen)
    for options in ({}, {"cache_implementation": "static"}, {"use_cache": False}):
        found = model.generate(prompt, generation_mode="image", guidance_scale=guidance, **options)
        assert torch.equal(found, chosen), options


def fond_of_images() -> SemHiTokForConditionalGeneration:
    """Everywhere the most likely ids are visual ids and the image marks, and which depends on the position."""
    model = mllm(image_positions=True)
    torch.nn.init.normal_(model.lm_head.weight[TEXT_SIZE:], std=20.0, generator=torch.Generator().manual_seed(0))
    assert model.image_positions is not None
    shake(model.image_positions, 1.0)
    return model


@pytest.mark.parametrize("beams", [1, 3])
def test_interleaved_images_are_those_of_whole_passes(beams: int):
    model = fond_of_images()
    ids = mixed_ids(model, 1)[:, :9]  # begin and five visual ids
    common: dict[str, Any] = {
        "generation_mode": "interleaved",
        "max_new_tokens": 50,
        "eos_token_id": None,
        "num_beams": beams,
    }
    wanted = model.generate(ids, use_cache=False, **common)
    assert model.vocabulary.is_visual(wanted).sum() > 32, "several images"
    assert torch.equal(model.generate(ids, **common), wanted)


def test_a_cache_that_was_cut_within_an_image_continues_there():
    model = fond_of_images()
    ids = mixed_ids(model, 1)
    common: dict[str, Any] = {"generation_mode": "interleaved", "max_new_tokens": 20, "eos_token_id": None}
    wanted = model.generate(ids[:, :9], use_cache=False, **common)
    with torch.no_grad():
        cache = model(ids[:, :12], use_cache=True).past_key_values
    cache.crop(-4)
    assert torch.equal(model.generate(ids[:, :9], past_key_values=cache, **common), wanted)


def test_a_new_model_is_as_one_without():
    ids = mixed_ids(mllm())
    plain, placed = (
        SemHiTokForConditionalGeneration.from_language_model(language_model(), image_tokenizer(), image_positions=given)
        for given in (False, True)
    )
    placed.adapter.load_state_dict(plain.adapter.state_dict())
    with torch.no_grad():
        assert torch.equal(placed(ids).logits, plain(ids).logits)


def test_saved_models_have_them_or_not(model: SemHiTokForConditionalGeneration, tmp_path: Path):
    ids, load = mixed_ids(model), SemHiTokForConditionalGeneration.from_pretrained
    model.save_pretrained(tmp_path / "with")
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "with")(ids).logits, model(ids).logits)
    mllm().save_pretrained(tmp_path / "without")
    assert load(tmp_path / "without").image_positions is None
    (tmp_path / "without" / "config.json").write_bytes((tmp_path / "with" / "config.json").read_bytes())
    with pytest.raises(ValueError, match="image_positions"):
        load(tmp_path / "without")
    with pytest.raises(ValueError, match="image_positions must be true or false"):
        mllm(image_positions="yes")


@pytest.mark.parametrize("kind", ["text", "visual"])
def test_every_step_of_training_uses_them(kind: str):
    """Ranks that differ in their ids must not differ in what they call."""
    model = mllm(image_positions=True)
    ids: Tensor = mixed_ids(model)[:, :3] if kind == "text" else mixed_ids(model)[:, 4:20]
    model.embed(ids).sum().backward()
    assert model.image_positions is not None
    assert all(parameter.grad is not None for parameter in model.image_positions.parameters())
