from dataclasses import replace

import pytest
import torch
from tests.evaluation.dummy import GreyTokenizer

from semhitok.evaluation.tokenizer.stages import stage_conflict


def images(seed):
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class OtherPixelCodes(GreyTokenizer):
    """As after stage 2: the pixel codes differ, the semantic ones do not."""

    def encode(self, pixel_values):
        encoded = super().encode(pixel_values)
        return replace(encoded, ids=encoded.semantic_ids * 8 + 7)


def test_pixel_codes_may_change():
    result = stage_conflict(GreyTokenizer(), OtherPixelCodes(), [images(0), images(1)])
    assert (result.images, result.tokens, result.ids_changed, result.identical) == (10, 160, 0, True)
    assert "bit-identical" in result.sentence()


def test_a_changed_semantic_code_is_found():
    before, after = GreyTokenizer(), GreyTokenizer(offset=0.1)
    result = stage_conflict(before, after, [images(0)])
    expected = (before.encode(images(0)).semantic_ids != after.encode(images(0)).semantic_ids).sum()
    assert result.ids_changed == expected > 0
    assert not result.identical
    assert result.largest_feature_change > 0
    assert f"{expected:,} semantic ids differ" in result.sentence()


def test_tokenizers_without_semantic_ids_are_refused():
    class Plain(GreyTokenizer):
        def encode(self, pixel_values):
            return replace(super().encode(pixel_values), semantic_ids=None)

    with pytest.raises(ValueError, match="semantic ids only"):
        stage_conflict(Plain(), Plain(), [images(0)])
