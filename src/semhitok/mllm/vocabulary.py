"""Layout of text and visual ids; the only file that uses offsets.

    [0, T)          text ids; T is the language model's ``config.vocab_size``, padding included, never ``len(text_tokenizer)``
    [T, T + S)      visual ids. One code per token: S = V and the visual id is T + tokenizer id. Several codes per token:
                    S = 1, every visual position holds the id T and its C codes are passed separately.
    T + S, T + S + 1    image begin and image end, unless the language model has its own such tokens among its text ids
    placeholder     one past the last id: a position to fill with an image; has no row in the head, is never generated

Shapes: B sequences, L positions, N tokens of one image, C codes per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Begin and end of an image in the vocabularies of known language models; the first pair that exists is used.
OWN_MARKS = (("<|vision_start|>", "<|vision_end|>"),)


@dataclass(frozen=True)
class Vocabulary:
    """The joint vocabulary of text and images.

    Attributes:
        text_size: T, rows of the language model's own table.
        visual_size: V, ids of the image tokenizer (codes of one codebook if a token has several codes).
        image_tokens: N, tokens of one image.
        codes_per_token: C.


        own_begin_id, own_end_id: the language model's own text ids for begin and end of an image, or None.

    Raises:
        ValueError: a size is below 1, only one mark is given, or a mark is not a text id.
    """

    text_size: int
    visual_size: int
    image_tokens: int
    codes_per_token: int = 1
    own_begin_id: int | None = None
    own_end_id: int | None = None

    def __post_init__(self) -> None:
        for name in ("text_size", "visual_size", "image_tokens", "codes_per_token"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        marks = (self.own_begin_id, self.own_end_id)
        if (marks[0] is None) != (marks[1] is None):
            raise ValueError(f"own_begin_id and own_end_id must be given together or not at all, got {marks}")
        for mark in marks:
            if mark is not None and not 0 <= mark < self.text_size:
                raise ValueError(f"the image marks must be text ids in [0, {self.text_size}), got {mark}")
        if marks[0] is not None and marks[0] == marks[1]:
            raise ValueError(f"own_begin_id and own_end_id must differ, both are {marks[0]}")

    @property
    def visual_slots(self) -> int:
        """S: number of ids, and of rows in the head, for images."""
        return self.visual_size if self.codes_per_token == 1 else 1

    @property
    def visual_begin(self) -> int:
        """The first visual id: T."""
        return self.text_size

    @property
    def visual_end(self) -> int:
        """One past the last visual id: T + S."""
        return self.text_size + self.visual_slots

    @property
    def controls(self) -> int:
        """Number of begin and end ids after the visual ids: 2, or 0 if the language model has its own."""
        return 2 if self.own_begin_id is None else 0

    @property
    def size(self) -> int:
        """Rows of the head: T + S + controls."""
        return self.visual_end + self.controls

    @property
    def image_begin_id(self) -> int:
        return self.visual_end if self.own_begin_id is None else self.own_begin_id

    @property
    def image_end_id(self) -> int:
        return self.visual_end + 1 if self.own_end_id is None else self.own_end_id

    @property
    def placeholder_id(self) -> int:
        """Marks a position to fill with an image; it has no row in the head and is invalid after filling."""
        return self.size

    @property
    def span_length(self) -> int:
        """Positions of one image with its begin and end: N + 2."""
        return self.image_tokens + 2

    def is_visual(self, ids: Tensor) -> Tensor:
        """Which ids are visual; same shape, bool."""
        return (ids >= self.visual_begin) & (ids < self.visual_end)

    def is_control(self, ids: Tensor) -> Tensor:
        """Which ids are begin or end ids with their own rows; same shape, bool. None if the language model has its own marks."""
        return (ids >= self.visual_end) & (ids < self.size)

    def visual_ids(self, tokenizer_ids: Tensor, *, check: bool = True) -> Tensor:
        """Ids of the image tokenizer, (...,N) or (...,N,C) -> visual ids (...,N).

        Args:
            check: look at the range of the ids, for which the host waits if they are on a GPU.

        Raises:
            ValueError: an id is not one of the tokenizer's.
        """
        tokenizer_ids = tokenizer_ids.long()  # torch has no minimum of unsigned integers
        if check and tokenizer_ids.numel():
            lowest, highest = torch.stack(tokenizer_ids.aminmax()).tolist()
            if not 0 <= lowest <= highest < self.visual_size:
                worst = max((lowest, highest), key=lambda value: abs(value - 0.5))
                raise ValueError(f"ids of the image tokenizer must lie in [0, {self.visual_size}), got {worst}")
        if self.codes_per_token == 1:
            return tokenizer_ids + self.visual_begin
        return torch.full_like(tokenizer_ids[..., 0], self.visual_begin)

    def tokenizer_ids(self, visual_ids: Tensor) -> Tensor:
        """Visual ids of a model with one code per token -> ids of the image tokenizer; the same shape."""
        assert self.codes_per_token == 1, "the ids of several codes per token are not in the sequence"
        return visual_ids - self.visual_begin

    def span(self, tokenizer_ids: Tensor) -> Tensor:
        """Ids of images (...,N) or (...,N,C) -> sequence ids (...,N+2), with begin and end."""
        visual = self.visual_ids(tokenizer_ids)
        marks = [torch.full_like(visual[..., :1], mark) for mark in (self.image_begin_id, self.image_end_id)]
        return torch.cat([marks[0], visual, marks[1]], dim=-1)

    def count_places(self, ids_BL: Tensor) -> int:
        """The number of images that the placeholders stand for.

        Raises:
            ValueError: the length of a run of placeholders is not the number of tokens of an image.
        """
        empty_BL = ids_BL == self.placeholder_id
        begins_BL = empty_BL & ~F.pad(empty_BL, (1, 0))[:, :-1]
        count, places = int(empty_BL.sum()), int(begins_BL.sum())
        if count != places * self.image_tokens:
            raise ValueError(
                f"{count} placeholder ids at {places} places, but an image has {self.image_tokens} tokens: the processor "
                "belongs to another tokenizer"
            )
        return places

    def place_image_ids(
        self, ids_BL: Tensor, image_ids: Tensor, codes_BLC: Tensor | None = None, *, check: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Replace placeholders by ids of images.

        Args:
            ids_BL: with N placeholders for every image.
            image_ids: ids of the image tokenizer, (I,N) or (I,N,C) for I images, in the order of their placeholders.
            codes_BLC: codes of images that are already in ``ids_BL``; zeros by default, ignored if C = 1.
            check: compare numbers and ranges, for which the host waits if the ids are on a GPU. Without it surplus images
                are not used.

        Returns:
            Ids (B,L) without placeholders, and codes (B,L,C) if C > 1, otherwise None.

        Raises:
            ValueError: the numbers of placeholders and tokens differ, or an id is not one of the tokenizer's.
        """
        empty_BL, visual_IN = ids_BL == self.placeholder_id, self.visual_ids(image_ids, check=check)
        if check and (places := int(empty_BL.sum())) != visual_IN.numel():
            raise ValueError(f"{places} placeholder ids cannot hold {visual_IN.numel()} tokens of images")
        filled_BL = ids_BL.long().masked_scatter(empty_BL, visual_IN)
        if self.codes_per_token == 1:
            return filled_BL, None
        if codes_BLC is None:
            codes_BLC = ids_BL.new_zeros(*ids_BL.shape, self.codes_per_token)
        return filled_BL, codes_BLC.long().masked_scatter(empty_BL[..., None], image_ids.long())

    def check_spans(self, ids_BL: Tensor) -> None:
        """Reject sequences in which images are not begin, N visual ids (or placeholders), end.

        The last image may be unfinished, since generation continues it. Runs on the CPU in one pass over the ids.

        Raises:
            ValueError: an id is outside the vocabulary, a visual id is outside an image, or an image has another length.
        """
        if ids_BL.numel() and not 0 <= int(ids_BL.min()) <= int(ids_BL.max()) <= self.placeholder_id:
            worst = int(ids_BL.min()) if int(ids_BL.min()) < 0 else int(ids_BL.max())
            raise ValueError(f"input ids must lie in [0, {self.size}), got {worst}")
        inside_BL = self.is_visual(ids_BL) | (ids_BL == self.placeholder_id)
        for ids, inside in zip(ids_BL.tolist(), inside_BL.tolist(), strict=True):
            self._check_row(ids, inside)

    def _check_row(self, ids: list[int], inside: list[bool]) -> None:
        run = 0
        for position, (value, visual) in enumerate(zip(ids, inside, strict=True)):
            if visual:
                if run == 0 and (position == 0 or ids[position - 1] != self.image_begin_id):
                    raise ValueError(
                        f"visual id {value} at position {position} is outside an image; images are begin id "
                        f"{self.image_begin_id}, {self.image_tokens} visual ids, end id {self.image_end_id}"
                    )
                run += 1
            elif run:
                if run != self.image_tokens or value != self.image_end_id:
                    raise ValueError(
                        f"an image holds {self.image_tokens} visual ids and then the end id {self.image_end_id}, got "
                        f"{run} and then {value} at position {position}"
                    )
                run = 0
        if run > self.image_tokens:
            raise ValueError(f"an image holds {self.image_tokens} visual ids, got {run} at the end of the sequence")
