import math

import pytest
import torch

from semhitok.evaluation.codebook import CodebookMetrics


def test_hand_computed_books():
    metrics = CodebookMetrics(12, subcodebook_size=4)  # K = 3
    metrics.update(torch.tensor([[0, 0, 1, 1], [2, 2, 3, 3]]))  # semantic code 0: all four sub-codes
    metrics.update(torch.tensor([[4, 4, 4, 4]]))  # semantic code 1: one sub-code; code 2 is never hit
    result = metrics.result()
    assert (result.joint.size, result.joint.tokens) == (12, 12)
    assert result.joint.usage == pytest.approx(5 / 12)
    entropy = 4 * (1 / 6) * math.log(6) + (1 / 3) * math.log(3)
    assert result.joint.perplexity == pytest.approx(math.exp(entropy))
    assert result.semantic is not None
    assert result.pixel is not None
    assert (result.semantic.size, result.semantic.usage) == (3, pytest.approx(2 / 3))
    assert result.semantic.perplexity == pytest.approx(math.exp(-(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)))
    # Inner codes: 0 is hit 2 + 4 times, 1, 2 and 3 twice each.
    assert result.pixel.usage == 1.0
    assert result.pixel.perplexity == pytest.approx(math.exp(0.5 * math.log(2) + 0.5 * math.log(6)))
    # Given the semantic code: 2/3 of the tokens choose among 4, the rest has no choice.
    assert result.pixel_given_semantic == pytest.approx(math.exp(2 / 3 * math.log(4)))


def test_under_used_subcodebooks():
    metrics = CodebookMetrics(12, subcodebook_size=4)
    metrics.update(torch.tensor([0, 1, 4, 8, 9, 10]))  # 2, 1 and 3 of 4 sub-codes
    assert metrics.result().underused_subcodebooks == 1


def test_a_tokenizer_without_semantic_codes_has_joint_codes_only():
    metrics = CodebookMetrics(8)
    metrics.update(torch.arange(8).reshape(2, 2, 2))
    result = metrics.result()
    assert result.joint.perplexity == pytest.approx(8)
    assert result.semantic is None
    assert result.pixel is None
    assert result.underused_subcodebooks is None


def test_vocabulary_must_divide():
    with pytest.raises(ValueError, match="do not divide"):
        CodebookMetrics(10, subcodebook_size=4)
