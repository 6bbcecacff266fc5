"""How much of its codebooks a tokenizer uses, counted over the ids of a data set.

For a joint id of semantic code k and pixel code j three codebooks are counted: the semantic codes k, the inner pixel codes
j and the joint ids. A tokenizer with several codes per token has a codebook for each, counted separately. Usage is the
share of codes hit at least once; it grows with the number of tokens, which is therefore reported with it. Perplexity is
exp(entropy), the number of equally likely codes that would be as hard to predict.

Shapes: B images, N tokens, C codes per token, K semantic codes, m sub-codes (the largest number where it differs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean

from torch import Tensor

from semhitok.quantizers.layout import IdLayout
from semhitok.quantizers.usage import CodeUsage, FrequencyBand, underused_subcodebooks, usage_by_frequency


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
        joint: the ids that a language model sees, [0, vocab_size); with several codes per token the mean usage and the
            mean perplexity of their codebooks, and the tokens counted in each.
        semantic: their semantic part, [0, K); None for tokenizers without one.
        pixel: their inner part, [0, m); its perplexity is at most m.
        pixel_given_semantic: perplexity of the pixel code once the semantic code is known,
            perplexity(joint) / perplexity(semantic): the effective number of sub-codes of a semantic code, out of m.
        underused_subcodebooks: semantic codes, among those hit, with fewer than half of their sub-codes hit.
        by_frequency: usage of the sub-codebooks, from rare to frequent semantic codes.
        by_codebook: each codebook separately, if a token has several codes; for residual quantization each depth.
        worst: the position in ``by_codebook`` of the lowest perplexity; None if a token has one code.
    """

    joint: BookScores
    semantic: BookScores | None = None
    pixel: BookScores | None = None
    pixel_given_semantic: float | None = None
    underused_subcodebooks: int | None = None
    by_frequency: list[FrequencyBand] = field(default_factory=list)
    by_codebook: list[BookScores] = field(default_factory=list)
    worst: int | None = None


class CodebookMetrics:
    """Counts ids batch by batch; all scores follow from these counts.

    Args:
        vocab_size: number of joint ids, or of codes in one codebook where a token has several.
        subcodebook_size: m, for ids k * m + j, or one size for each semantic code; None for tokenizers without a semantic
            part.
        codes_per_token: C.

    Raises:
        ValueError: sizes that contradict each other.
    """

    def __init__(
        self, vocab_size: int, subcodebook_size: int | Sequence[int] | None = None, codes_per_token: int = 1
    ) -> None:
        if codes_per_token > 1 and subcodebook_size is not None:
            raise ValueError(f"ids with a semantic part have one code per token, got {codes_per_token}")
        self.layout: IdLayout | None = None
        if isinstance(subcodebook_size, int):
            if vocab_size % subcodebook_size:
                raise ValueError(f"{vocab_size} ids do not divide into sub-codebooks of {subcodebook_size} codes.")
            self.layout = IdLayout.of(vocab_size // subcodebook_size, subcodebook_size)
        elif subcodebook_size is not None:
            self.layout = IdLayout.of(len(subcodebook_size), subcodebook_size)
            if self.layout.vocab_size != vocab_size:
                raise ValueError(f"sub-codebooks of {self.layout.vocab_size} codes do not make {vocab_size} ids.")
        self.books = [CodeUsage(vocab_size) for _ in range(codes_per_token)]

    def update(self, ids: Tensor) -> None:
        """Add ids in [0, vocab_size): of any shape for one code per token, (...,C) for several.

        Raises:
            ValueError: another number of codes per token.
        """
        if len(self.books) == 1:
            self.books[0].update(ids)
            return
        if ids.shape[-1] != len(self.books):
            raise ValueError(f"ids must hold {len(self.books)} codes per token, got shape {tuple(ids.shape)}")
        for book, own_ids in zip(self.books, ids.unbind(dim=-1), strict=True):
            book.update(own_ids)

    def result(self) -> CodebookScores:
        """Usage and perplexity so far."""
        if len(self.books) > 1:
            return _several([_scores(book) for book in self.books])
        (book,) = self.books
        joint = _scores(book)
        if self.layout is None:
            return CodebookScores(joint)
        counts_Km = self.layout.table(book.counts)
        semantic, pixel = (_scores(CodeUsage.of(counts)) for counts in (counts_Km.sum(dim=1), counts_Km.sum(dim=0)))
        return CodebookScores(
            joint=joint,
            semantic=semantic,
            pixel=pixel,
            # exp(H(joint) - H(semantic)) = exp(H(pixel | semantic))
            pixel_given_semantic=joint.perplexity / semantic.perplexity,
            underused_subcodebooks=underused_subcodebooks(counts_Km, self.layout.size_of),
            by_frequency=usage_by_frequency(counts_Km, self.layout.size_of),
        )


def _several(books: list[BookScores]) -> CodebookScores:
    usage, perplexity = (mean(getattr(book, name) for book in books) for name in ("usage", "perplexity"))
    worst = min(range(len(books)), key=lambda number: books[number].perplexity)
    return CodebookScores(BookScores(books[0].size, books[0].tokens, usage, perplexity), by_codebook=books, worst=worst)


def _scores(usage: CodeUsage) -> BookScores:
    return BookScores(len(usage.counts), int(usage.counts.sum()), float(usage.usage), float(usage.perplexity))
