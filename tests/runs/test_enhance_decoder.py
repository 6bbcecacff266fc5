"""The larger decoder of stage 3: grown out of the old one without a change, or fresh."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.tiny import changed, copy_of, pixel_config, pixels, take_steps, tiny_feed, tiny_model

from semhitok.recipes.recipe import EnhancedDecoder
from semhitok.runs.semhitok_models import enhance_decoder
from semhitok.training.tasks.pixel import PixelTask


@pytest.mark.parametrize("changes", [{}, {"concat": "length"}, {"concat": "none", "refine_channels": 0}])
@pytest.mark.parametrize("layers", [2, 5])
def test_a_grown_decoder_reproduces_the_old_one_exactly(changes: dict[str, Any], layers: int):
    model = tiny_model(**changes, stages=["semantic", "pixel"], provenance={"pixel": {"steps": 3}})
    larger = enhance_decoder(model, EnhancedDecoder(layers=layers, width=16, heads=2, grow=True), seed=0)
    assert larger.config.decoder_layers == len(larger.pixel_decoder.transformer.blocks) == layers
    assert (larger.config.stages, larger.config.provenance) == (["semantic", "pixel"], {"pixel": {"steps": 3}})
    ids = torch.randint(0, 64, (8, 16))
    assert torch.equal(larger.decode(ids), model.decode(ids))
    assert torch.equal(larger.encode(pixels(8)).ids, model.encode(pixels(8)).ids)
    assert model.config.decoder_layers == 2, "the old model stays as it was"


def test_all_that_was_added_can_learn():
    larger = enhance_decoder(tiny_model(), EnhancedDecoder(layers=4, width=16, heads=2, grow=True), seed=0)
    before = copy_of(larger)
    take_steps(PixelTask(larger, pixel_config(decoder_only=True)), tiny_feed(), 4)
    moved = changed(before, larger)
    assert moved == {name for name in before if name.startswith("pixel_decoder.")}


def test_a_fresh_decoder_is_another_one_and_nothing_else_changes():
    model, size = tiny_model(), EnhancedDecoder(layers=3, width=24, heads=3)
    before = copy_of(model)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    larger, again, other = (enhance_decoder(model, size, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state), "the random numbers of the run must not shift"
    config = larger.config
    assert (config.decoder_layers, config.decoder_width, config.decoder_heads) == (3, 24, 3)
    for name, tensor in before.items():
        if not name.startswith("pixel_decoder."):
            assert torch.equal(larger.state_dict()[name], tensor), name
    encoded = model.encode(pixels(8))
    assert torch.equal(larger.encode(pixels(8)).ids, encoded.ids)
    assert not torch.equal(larger.decode(encoded.ids), model.decode(encoded.ids))
    assert torch.equal(larger.decode(encoded.ids), again.decode(encoded.ids))
    assert not torch.equal(larger.decode(encoded.ids), other.decode(encoded.ids))
    same_size = enhance_decoder(model, EnhancedDecoder(layers=2, width=16, heads=2), seed=0)
    assert not torch.equal(same_size.decode(encoded.ids), model.decode(encoded.ids)), "fresh means fresh"


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"layers": 3, "width": 32, "heads": 2}, "grows in depth only: width 16 and 2 heads cannot become 32 and 2"),
        ({"layers": 3, "width": 16, "heads": 4}, "grows in depth only: .* cannot become 16 and 4; set grow to false"),
        ({"layers": 1, "width": 16, "heads": 2}, "has 1 layers, fewer than the 2 it grows from"),
    ],
)
def test_what_cannot_grow_is_refused_in_one_sentence(size: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message) as caught:
        enhance_decoder(tiny_model(), EnhancedDecoder(**size, grow=True), seed=0)
    assert "\n" not in str(caught.value)


def test_a_fresh_decoder_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="decoder_width 18 must split into decoder_heads 4"):
        enhance_decoder(tiny_model(), EnhancedDecoder(layers=2, width=18, heads=4), seed=0)
