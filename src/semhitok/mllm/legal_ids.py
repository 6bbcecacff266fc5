"""Constraints on the next id: text ids in text, exactly N visual ids and then the end id in an image.

Shapes: B sequences, L positions, V ids.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor

from semhitok.mllm.vocabulary import Vocabulary

GenerationMode = Literal["text", "image", "interleaved"]
_TEXT, _TEXT_OR_BEGIN, _VISUAL, _END = range(4)


class LegalIds(LogitsProcessor):
    """Sets the logits of all invalid next ids to -inf.

    Args:
        vocabulary: the id layout.
        mode: "text": text ids without image marks; "image": visual ids; "interleaved": depends on the previous ids. An image
            may begin only if there is room for all of it.
        max_length: length at which generation stops, prompt included.
    """

    def __init__(self, vocabulary: Vocabulary, mode: GenerationMode, max_length: int) -> None:
        self.vocabulary = vocabulary
        self.mode: GenerationMode = mode
        self.max_length = max_length
        self._illegal_4V: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self._illegal_4V is None:
            self._illegal_4V = self._table(scores)
        if self.mode != "interleaved":
            return scores.masked_fill(self._illegal_4V[_TEXT if self.mode == "text" else _VISUAL], float("-inf"))
        generated_B = self._generated(input_ids)
        room = self.max_length - input_ids.shape[1] >= self.vocabulary.span_length
        state_B = torch.where(generated_B < self.vocabulary.image_tokens, _VISUAL, _END)
        state_B = torch.where(generated_B < 0, _TEXT_OR_BEGIN if room else _TEXT, state_B)
        return scores.masked_fill(self._illegal_4V[state_B], float("-inf"))

    def _table(self, scores: Tensor) -> Tensor:
        """Illegal ids in each of the four states, (4,V); V is T if only text rows of the head were computed."""
        vocabulary, count = self.vocabulary, scores.shape[-1]
        legal = torch.zeros(4, count, dtype=torch.bool, device=scores.device)
        legal[[_TEXT, _TEXT_OR_BEGIN], : vocabulary.text_size] = True
        for mark in (vocabulary.image_begin_id, vocabulary.image_end_id):
            legal[:, mark : mark + 1] = False
        legal[_TEXT_OR_BEGIN, vocabulary.image_begin_id : vocabulary.image_begin_id + 1] = True
        legal[_VISUAL, vocabulary.visual_begin : vocabulary.visual_end] = True
        legal[_END, vocabulary.image_end_id : vocabulary.image_end_id + 1] = True
        return ~legal

    def _generated(self, input_ids: Tensor) -> Tensor:
        """Visual ids since the last begin of an image that has not ended, -1 outside an image: (B)."""
        window = input_ids[:, -(self.vocabulary.image_tokens + 1) :]
        begins = (window == self.vocabulary.image_begin_id).flip(1)
        ended = (window == self.vocabulary.image_end_id).flip(1)
        since = begins.int().argmax(dim=1)
        closed = ended.any(dim=1) & (ended.int().argmax(dim=1) < since)
        return torch.where(begins.any(dim=1) & ~closed, since, -1)
