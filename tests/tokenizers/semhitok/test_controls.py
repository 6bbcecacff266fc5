"""Sub-codebooks of different sizes and the controls, as choices of configuration of the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import copy_of, pixels, tiny_config, tiny_model

from semhitok.tokenizers import SemHiTokConfig, SemHiTokModel
from semhitok.tokenizers.settings import settings_of

SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 8, 7, 6, 5, 4, 3, 2, 1]
VARIANTS: dict[str, dict[str, Any]] = {
    "sizes": {"subcodebook_sizes": SIZES},
    "shared": {"pixel_codebook": "shared"},
    "random": {"pixel_codebook": "random"},
    "semantic only": {"concat": "semantic", "subcodebook_size": 1},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_decoding_ids_is_the_forward_pass_bit_for_bit_also_when_reloaded(variant: str, tmp_path: Path):
    model = tiny_model(**VARIANTS[variant])
    model.save_pretrained(tmp_path)
    loaded, images = SemHiTokModel.from_pretrained(tmp_path), pixels(12, seed=5)
    encoded = model.encode(images)
    assert torch.equal(loaded.encode(images).ids, encoded.ids)
    with torch.no_grad():
        output = loaded(images)
    assert torch.equal(output.ids, encoded.ids)
    assert torch.equal(loaded.decode(encoded.ids), output.reconstruction.clamp(-1, 1))
    assert torch.equal(loaded.pixel_quantizer.split_ids(encoded.ids)[0], encoded.semantic_ids)
    decoder = SemHiTokModel.from_pretrained(tmp_path, encoder=False)
    assert torch.equal(decoder.decode(encoded.ids), loaded.decode(encoded.ids))
    assert encoded.ids.max() < model.vocab_size
    assert len(encoded.ids.unique()) > 10


def test_bits_are_those_of_the_configuration():
    sizes = {variant: tiny_config(**changes).vocab_size for variant, changes in VARIANTS.items()}
    assert sizes == {"sizes": sum(SIZES), "shared": 64, "random": 64, "semantic only": 16}


def test_the_shipped_checkpoints_configuration_says_nothing_of_sizes_and_loads():
    plain = json.loads(tiny_config().to_json_string())
    for name in ("subcodebook_sizes", "pixel_codebook"):
        plain.pop(name)
    config = SemHiTokConfig.from_dict(plain)
    assert (config.subcodebook_sizes, config.pixel_codebook, config.vocab_size) == (None, "semantic", 64)


def test_equal_sizes_are_the_uniform_model_bit_for_bit():
    plain, sized = tiny_model(), tiny_model(subcodebook_sizes=[4] * 16)
    before, images = copy_of(plain), pixels(12, seed=5)
    assert list(before) == list(copy_of(sized))
    assert all(torch.equal(tensor, before[name]) for name, tensor in sized.state_dict().items())
    assert torch.equal(sized.encode(images).ids, plain.encode(images).ids)
    assert torch.equal(sized.embedding_table(), plain.embedding_table())


def test_the_table_of_sized_sub_codebooks_is_in_id_order():
    model = tiny_model(subcodebook_sizes=SIZES)
    table, row = model.embedding_table(), 0
    assert table.shape == (72, 10)
    for k, size in enumerate(SIZES):
        for j in range(size):
            pixel = F.normalize(model.pixel_quantizer.codebook_KmD[k, j].detach(), dim=-1)
            torch.testing.assert_close(table[row], torch.cat([model.semantic.quantizer.codebook_KD[k], pixel]))
            row += 1
    with pytest.raises(ValueError, match=r"ids must lie in \[0, 72\), got 72"):
        model.decode(torch.full((1, 16), 72))
    facts = settings_of(model)
    assert (facts["vocab_size"], facts["smallest_subcodebook_size"], facts["subcodebook_size"]) == (72, 1, 8)


def test_the_random_choice_has_no_table():
    with pytest.raises(ValueError, match="pixel code of an id depends on its position"):
        tiny_model(pixel_codebook="random").embedding_table()
    shared = tiny_model(pixel_codebook="shared").embedding_table()
    assert torch.equal(shared[:4, 6:], shared[60:, 6:])


def test_the_semantic_code_alone_is_what_the_decoder_sees():
    model = tiny_model(concat="semantic", subcodebook_size=1)
    semantic, pixel = torch.randn(1, 16, 6), torch.randn(1, 16, 4)
    with torch.no_grad():
        image = model.decode_features(semantic, pixel, (4, 4))
        assert torch.equal(model.decode_features(semantic, pixel + 1, (4, 4)), image)
        assert not torch.equal(model.decode_features(semantic + 1, pixel, (4, 4)), image)
    ids = model.encode(pixels(4)).ids
    assert torch.equal(ids, model.encode_semantic(pixels(4)).ids)


def test_codes_that_carry_gradients_take_the_place_of_those_looked_up():
    model = tiny_model()
    quantized = model.encode_semantic(pixels(2))
    codes = quantized.codes.detach().requires_grad_()
    output = model(pixels(2), quantized.ids, codes)
    with torch.no_grad():
        assert torch.equal(output.reconstruction, model(pixels(2)).reconstruction)
    output.reconstruction.square().mean().backward()
    assert codes.grad is not None
    assert (codes.grad.abs().sum(-1) > 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subcodebook_sizes": [4] * 15}, "one size for each of 16 semantic codes, got 15"),
        ({"subcodebook_sizes": []}, "got 0"),
        ({"subcodebook_sizes": [4] * 15 + [0]}, "whole numbers of at least 1, got 0"),
        ({"subcodebook_sizes": [4] * 15 + [1.5]}, "whole numbers of at least 1, got 1.5"),
        ({"subcodebook_sizes": SIZES, "pixel_codebook": "shared"}, "pixel_codebook must be semantic, got shared"),
        ({"pixel_codebook": "pixel"}, "pixel_codebook must be one of semantic, shared, random, grouped, got 'pixel'"),
        ({"pixel_codebook": "grouped"}, "belong together, got pixel_codebook grouped without groups"),
        ({"semantic_groups": [0] * 16}, "belong together, got pixel_codebook semantic with groups"),
        (
            {"pixel_codebook": "grouped", "semantic_groups": [0, 1]},
            "must hold the group of each of 16 semantic codes, got 2",
        ),
        (
            {"pixel_codebook": "grouped", "semantic_groups": [0, 2] * 8},
            "must number the groups 0, 1, 2, ... without gaps",
        ),
        ({"concat": "semantic"}, "uses no pixel code, so subcodebook_size must be 1, got 4"),
    ],
)
def test_contradictions_are_refused_in_one_sentence(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as caught:
        tiny_config(**changes)
    assert "\n" not in str(caught.value)
