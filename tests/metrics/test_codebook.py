import math

import pytest
import torch

from semhitok.metrics.codebook import CodebookMetrics


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


def test_sub_codebooks_of_different_sizes():
    metrics = CodebookMetrics(7, subcodebook_size=[4, 1, 2])
    metrics.update(torch.tensor([0, 4, 4, 5, 6, 6]))  # codes 0, 1, 1, 2, 2, 2 with 1 of 4, 1 of 1 and 2 of 2 sub-codes
    result = metrics.result()
    assert result.semantic is not None
    assert result.pixel is not None
    assert result.semantic.perplexity == pytest.approx(
        math.exp(math.log(6) / 6 + math.log(3) / 3 + math.log(2) / 2), rel=1e-12
    )
    assert (result.pixel.size, result.pixel.usage) == (4, 0.5)  # j = 0 four times, j = 1 twice
    assert result.underused_subcodebooks == 1
    assert [band.codes for band in result.by_frequency] == [1, 1, 1]
    assert [band.used for band in result.by_frequency] == [0.25, 1.0, 1.0]
    with pytest.raises(ValueError, match="sub-codebooks of 7 codes do not make 8 ids"):
        CodebookMetrics(8, subcodebook_size=[4, 1, 2])


def test_several_codebooks_are_counted_apart():
    metrics = CodebookMetrics(4, codes_per_token=2)
    first, second = [0, 0, 1, 1, 2, 2, 3, 3], [3, 3, 3, 3, 3, 3, 3, 3]
    for part in (slice(0, 2), slice(2, 8)):
        metrics.update(torch.tensor([first[part], second[part]]).T[None])  # (1,N,2)
    result = metrics.result()
    assert [(book.usage, book.tokens, book.size) for book in result.by_codebook] == [(1.0, 8, 4), (0.25, 8, 4)]
    assert [book.perplexity for book in result.by_codebook] == pytest.approx([4.0, 1.0])
    assert result.worst == 1
    assert (result.joint.size, result.joint.tokens, result.joint.usage) == (4, 8, 0.625)
    assert result.joint.perplexity == pytest.approx(2.5)
    assert result.semantic is None
    with pytest.raises(ValueError, match="ids must hold 2 codes per token"):
        metrics.update(torch.zeros(1, 8, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="have one code per token, got 2"):
        CodebookMetrics(4, subcodebook_size=2, codes_per_token=2)
