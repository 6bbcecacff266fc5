"""Ids of images in place of their placeholders, among inputs and labels.

Shapes: B sequences, L positions, I images of C = 3 channels and H x W pixels, N tokens of one image, C codes per token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from semhitok.data.packing import IGNORED
from semhitok.mllm.image_generation import ImageTextModel
from semhitok.mllm.vocabulary import Vocabulary


class ImageFillingMixin:
    """For a model with an image tokenizer; see ``SemHiTokForConditionalGeneration``."""

    @torch.no_grad()
    def fill_images(
        self: ImageTextModel, input_ids: Tensor, pixel_values: Tensor | None, visual_codes: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Tokenize images and replace the placeholders by their ids, in order.

        Args:
            input_ids: (B,L) with N placeholders for every image.


            pixel_values: (I,3,H,W) in [-1,1], or None without images to fill in.
            visual_codes: (B,L,C) codes of images that are already ids, only if C > 1; zeros by default.

        Returns:
            input_ids without placeholders, and visual_codes (None if C = 1).

        Raises:
            ValueError: the numbers of images and placeholders differ, or an image does not have N tokens.
        """
        vocabulary, tokenizer, input_ids = self.vocabulary, self.image_tokenizer, input_ids.long()
        if vocabulary.codes_per_token > 1 and visual_codes is None:
            visual_codes = input_ids.new_zeros(*input_ids.shape, vocabulary.codes_per_token)
        # In each step of generation there is one id, which is no placeholder; to look at it the host would wait for a GPU.
        one_id = input_ids.shape[1] == 1 and input_ids.device.type != "cpu"
        if pixel_values is None and (one_id or not (input_ids == vocabulary.placeholder_id).any()):
            return input_ids, visual_codes
        places, images = vocabulary.count_places(input_ids), 0 if pixel_values is None else len(pixel_values)
        if places != images:
            raise ValueError(f"the text has places for {places} images, got {images}")
        if pixel_values is None:
            return input_ids, visual_codes
        ids = tokenizer.encode(pixel_values.to(tokenizer.device, tokenizer.dtype)).ids
        if ids.shape[1] != vocabulary.image_tokens:
            raise ValueError(f"images must have {vocabulary.image_tokens} tokens, these have {ids.shape[1]}")
        return vocabulary.place_image_ids(input_ids, ids, visual_codes)

    def fill_inputs(self: ImageTextModel, inputs: Mapping[str, Any], *, shift_labels: bool = False) -> dict[str, Any]:
        """Model inputs with the ids of images in place of ``pixel_values`` and of placeholders, also among the labels.

        ``forward`` does this itself. Call it first, for instance when batches are collated, if the labels are used outside
        ``forward`` (a loss of one's own, label smoothing), or if input embeddings are needed (see ``embed``).

        Args:
            inputs: of ``forward``, at least input_ids.
            shift_labels: move the labels one position to the left, for losses that compare logits and labels at the same
                position, as the label smoothing of ``Trainer`` does for this model.

        Returns:
            The inputs without pixel_values; with input_ids, with visual_codes if C > 1, and with labels if there are any.

        Raises:
            ValueError: see ``fill_images``.
        """
        filled = dict(inputs)
        given_BL = filled["input_ids"].to(self.device)
        filled["input_ids"], codes = self.fill_images(
            given_BL, filled.pop("pixel_values", None), filled.get("visual_codes")
        )
        if codes is not None:
            filled["visual_codes"] = codes
        if filled.get("labels") is not None:
            labels_BL = filled["labels"].to(self.device)
            labels_BL = filled_labels(self.vocabulary, labels_BL, given_BL, filled["input_ids"])
            filled["labels"] = F.pad(labels_BL[:, 1:], (0, 1), value=IGNORED) if shift_labels else labels_BL
        return filled


def filled_labels(vocabulary: Vocabulary, labels_BL: Tensor, given_BL: Tensor, filled_BL: Tensor) -> Tensor:
    """Labels (B,L) with the ids of images at placeholders; ignored positions stay ignored.

    Args:
        vocabulary: of the model.
        labels_BL: with placeholders.
        given_BL, filled_BL: input ids before and after their images were filled in.
    """
    learned_BL = (given_BL == vocabulary.placeholder_id) & (labels_BL != IGNORED)
    return torch.where(learned_BL, filled_BL, labels_BL.long())
