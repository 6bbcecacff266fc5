"""How much of its codebooks a tokenizer uses, counted over the ids of a data set.

For a joint id = k * m + j three books are counted: the semantic codes k, the inner pixel codes j, the joint ids.
Usage is the share of codes hit at least once; it grows with the number of tokens counted, so that number goes with it.
Perplexity is exp(entropy): as many equally likely codes would be as hard to predict.

Shapes: B images, N tokens, K semantic codes, m sub-codes.
"""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from semhitok.quantizers.usage import CodeUsage, underused_subcodebooks


@dataclass(frozen=True)
class BookScores:
    """One codebook over a data set: its size, tokens counted, share of codes used, perplexity in codes."""

    size: int
    tokens: int
    usage: float
    perplexity: float


@dataclass(frozen=True)
class CodebookScores:
    """All codebooks of a tokenizer over a data set.

    Attributes:
        joint: the ids that a language model sees, [0, vocab_size).
        semantic: their semantic part, [0, K); None for tokenizers without one.
        pixel: their inner part, [0, m); its perplexity is at most m.
        pixel_given_semantic: perplexity of the pixel code once the semantic code is known,
            perplexity(joint) / perplexity(semantic): how many of its m sub-codes a semantic code has in effect.
        underused_subcodebooks: semantic codes, among those hit, with fewer than m / 2 of their sub-codes hit.
    """

    joint: BookScores
    semantic: BookScores | None = None
    pixel: BookScores | None = None
    pixel_given_semantic: float | None = None
    underused_subcodebooks: int | None = None


class CodebookMetrics:
    """Counts joint ids batch by batch; everything else follows from these counts.

    Args:
        vocab_size: number of joint ids.
        subcodebook_size: m, for ids k * m + j; None for tokenizers without a semantic part.
    """

    def __init__(self, vocab_size: int, subcodebook_size: int | None = None) -> None:
        if subcodebook_size is not None and vocab_size % subcodebook_size:
            raise ValueError(f"{vocab_size} ids do not divide into sub-codebooks of {subcodebook_size} codes.")
        self.joint = CodeUsage(vocab_size)
        self.subcodebook_size = subcodebook_size

    def update(self, ids: Tensor) -> None:
        """Add ids of any shape, in [0, vocab_size)."""
        self.joint.update(ids)

    def result(self) -> CodebookScores:
        """Usage and perplexity so far."""
        joint = _scores(self.joint)
        if self.subcodebook_size is None:
            return CodebookScores(joint)
        counts_Km = rearrange(self.joint.counts, "(k m) -> k m", m=self.subcodebook_size)
        semantic, pixel = (_scores(_usage_from(counts)) for counts in (counts_Km.sum(dim=1), counts_Km.sum(dim=0)))
        return CodebookScores(
            joint=joint,
            semantic=semantic,
            pixel=pixel,
            # exp(H(joint) - H(semantic)) = exp(H(pixel | semantic))
            pixel_given_semantic=joint.perplexity / semantic.perplexity,
            underused_subcodebooks=underused_subcodebooks(counts_Km),
        )


def _usage_from(counts: Tensor) -> CodeUsage:
    usage = CodeUsage(len(counts))
    usage.counts += counts
    return usage


def _scores(usage: CodeUsage) -> BookScores:
    return BookScores(len(usage.counts), int(usage.counts.sum()), float(usage.usage), float(usage.perplexity))
