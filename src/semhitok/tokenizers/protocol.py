"""What image tokenizers offer; the language model and the evaluation know nothing else.

``ImageTokenizer`` is enough to be evaluated and to feed a language model. ``Tokenizer`` adds what the tokenizers of the
registry say of themselves, so that exports, model cards and commands never ask which kind they hold.

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
        config: has ``image_size``, the side in pixels that ``encode`` expects by default. Where the embedding of an id also
            depends on its place in the image, ``place_dependence`` says why; such a tokenizer cannot feed a language model.
        vocab_size: number of joint ids.
        num_tokens: tokens N of a square image of the default size.
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
        """ids -> the features a language model takes in."""
        ...


@runtime_checkable
class ProjectedFeatures(Protocol):
    """Optional: features of tokens beyond their codes, which the category probe reads as well."""

    def projected_features(self, embedded: Embedded) -> dict[str, Tensor]:
        """What ``embed`` returned -> features (B,N,D) by name."""
        ...


@dataclass(frozen=True)
class Rounding:
    """What an export stores in bfloat16; everything else stays as it is.

    Attributes:
        tensors: how the names of rounded tensors begin.
        sentence: the same in words, as in "decoder in bfloat16".
    """

    tensors: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class CardFacts:
    """What a model card says about one kind of tokenizer.

    Attributes:
        name: of the kind.
        paper: where it is described.
        rows: of the table of facts, name and value.
        limits: sentences.
        imports, use: further lines of the example in Python, for the head and for after model, images and ids are there;
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
    """A ``PreTrainedModel`` of the registry, with what it says of itself.

    Attributes:
        id_tensors: how the names of the tensors begin that decide ids. A tokenizer that does not say so is taken to need
            them all.
        rounding: what an export stores in bfloat16.
        semantic_codebook_size: K, where ``encode`` also returns ``semantic_ids`` in [0, K) and ``config.id_layout`` says
            which ids belong to which of them; None where ids have no semantic part.
        has_text_tower: whether it embeds texts beside images.
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
        """What ``inspect`` shows of this kind alone, as plain values fit for JSON."""
        ...

    def card_facts(self) -> CardFacts:
        """What the model card says of this kind alone.

        Raises:
            ValueError: there are no tokens to describe.
        """
        ...

    def load_processor(self, place: str | os.PathLike[str]) -> Any:
        """What prepares the inputs of the checkpoint at ``place``: an image processor, or a processor of images and texts
        with its text tokenizer as ``tokenizer``.

        Raises:
            Exception: the text tokenizer is missing or damaged.
        """
        ...

    def __getattr__(self, name: str) -> Any:
        """Anything else that a ``PreTrainedModel`` has."""
        ...
