"""Interfaces of image tokenizers, on which the language model and the evaluation rely exclusively.

``ImageTokenizer`` suffices for evaluation and as input of a language model. ``Tokenizer`` adds the self-description of
registered tokenizers, so that exports, model cards and commands need not distinguish their kinds.

Shapes: B images, N tokens, C codes per token.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from semhitok.types import Embedded, Encoded


@runtime_checkable
class ImageTokenizer(Protocol):
    """Images <-> discrete tokens.

    Attributes:
        config: has ``image_size``, the side in pixels that ``encode`` expects by default. If the embedding of an id also depends
            on its position, ``place_dependence`` says why; a language model can only use such a tokenizer with the adapter ``semantic``.
        vocab_size: number of joint ids.
        num_tokens: N, the number of tokens of a square image of the default size.
        codes_per_token: C; 1 for SemHiTok.
    """

    config: Any

    @property
    def vocab_size(self) -> int: ...

    @property
    def num_tokens(self) -> int: ...

    @property
    def codes_per_token(self) -> int: ...

    def encode(self, pixel_values: Tensor) -> Encoded:
        """(B,3,H,W) in [-1,1] -> ids (B,N), or (B,N,C)."""
        ...

    def decode(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """ids (B,N) or (B,N,C) -> (B,3,H,W) clamped to [-1,1]; ``grid`` (rows, columns) for non-square images."""
        ...

    def embed(self, ids: Tensor) -> Embedded:
        """ids -> the features that a language model takes as input."""
        ...


@runtime_checkable
class ProjectedFeatures(Protocol):
    """Optional: features of tokens besides their codes, which the category probe evaluates as well."""

    def projected_features(self, embedded: Embedded) -> dict[str, Tensor]:
        """Result of ``embed`` -> features (B,N,D) by name."""
        ...


@dataclass(frozen=True)
class Rounding:
    """The tensors that an export stores in bfloat16; all others keep their dtype.

    Attributes:
        tensors: prefixes of the names of rounded tensors.
        sentence: a description such as "decoder in bfloat16".
    """

    tensors: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class CardFacts:
    """Facts about one kind of tokenizer for its model card.

    Attributes:
        name: name of the kind.
        paper: its source.
        rows: rows of the table of facts: name and value.
        limits: sentences about limitations.
        imports, use: further lines of the Python example, for its head and for its end, where model, images and ids exist;
            NAME stands for the checkpoint.
    """

    name: str
    paper: str
    rows: list[list[str]]
    limits: list[str]
    imports: list[str] = field(default_factory=list)
    use: list[str] = field(default_factory=list)


@runtime_checkable
class Tokenizer(ImageTokenizer, Protocol):
    """A registered ``PreTrainedModel`` with its self-description.

    Attributes:
        id_tensors: prefixes of the names of the tensors that determine ids; without it, all tensors are assumed to.
        rounding: tensors that an export stores in bfloat16.
        semantic_codebook_size: K, if ``encode`` also returns ``semantic_ids`` in [0, K) and ``config.id_layout`` maps ids to
            these; None if ids have no semantic part.
        has_text_tower: whether it embeds texts as well as images.
    """

    @property
    def id_tensors(self) -> tuple[str, ...]: ...

    @property
    def rounding(self) -> Rounding: ...

    @property
    def semantic_codebook_size(self) -> int | None: ...

    @property
    def has_text_tower(self) -> bool: ...

    def settings(self) -> dict[str, Any]:
        """The settings that ``inspect`` shows for this kind only, as JSON-serialisable values."""
        ...

    def card_facts(self) -> CardFacts:
        """The facts that the model card states for this kind only.

        Raises:
            ValueError: there are no tokens to describe.
        """
        ...

    def load_processor(self, place: str | os.PathLike[str]) -> Any:
        """The processor of the checkpoint at ``place``: an image processor, or a processor of images and texts with its
        text tokenizer as ``tokenizer``.

        Raises:
            Exception: the text tokenizer is missing or damaged.
        """
        ...

    def __getattr__(self, name: str) -> Any:
        """Any other attribute of a ``PreTrainedModel``."""
        ...
