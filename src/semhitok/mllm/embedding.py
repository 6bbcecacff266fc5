"""Input embeddings of text, marks and images.

Shapes: B sequences, L positions, P visual positions, C codes per token, D channels.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from semhitok.mllm.adapter import Adapter
from semhitok.mllm.image_positions import ImagePositions, index_in_image
from semhitok.mllm.vocabulary import Vocabulary


class ModelWithEmbeddings(Protocol):
    """What embeddings are made of; see ``SemHiTokForConditionalGeneration``."""

    vocabulary: Vocabulary
    training: bool
    image_tokenizer: Any
    adapter: Adapter
    image_positions: ImagePositions | None
    controls: nn.Embedding | None

    def get_input_embeddings(self) -> nn.Embedding: ...

    def embed_visual(self, tokenizer_ids: Tensor, index: Tensor | int | None = None) -> Tensor: ...


class EmbeddingMixin:
    """For a model with a text table, an image tokenizer and an adapter; see ``SemHiTokForConditionalGeneration``."""

    def embed_visual(self: ModelWithEmbeddings, tokenizer_ids: Tensor, index: Tensor | int | None = None) -> Tensor:
        """Ids of the image tokenizer -> input embeddings.

        Args:
            tokenizer_ids: (P) or (P,C).
            index: (P) numbers of the tokens within their images, or one for all, for models with ``image_positions``; None
                gives the embeddings of the ids alone.

        Returns:
            (P,D).
        """
        embeds_PD = self.adapter(self.image_tokenizer.embed(tokenizer_ids[None]))[0]
        if index is None or self.image_positions is None:
            return embeds_PD
        return embeds_PD + self.image_positions(index)

    def embed(
        self: ModelWithEmbeddings,
        input_ids: Tensor,
        visual_codes: Tensor | None = None,
        before: Tensor | None = None,
    ) -> Tensor:
        """Ids of text and images -> input embeddings.

        Args:
            input_ids: (B,L) without placeholders.
            visual_codes: (B,L,C), if C > 1.
            before: (B) numbers of an image's tokens that come right before ``input_ids``, if they continue an image.

        Returns:
            (B,L,D).
        """
        vocabulary, table = self.vocabulary, self.get_input_embeddings()
        # In training every rank uses table, controls and adapter in every step, whatever its ids. Otherwise nothing is computed
        # for kinds of ids that do not occur, except for a generated id on a GPU, where the host would wait to look at it.
        inference = not (self.training or torch.is_grad_enabled()) and input_ids.numel() > 0
        generated = inference and input_ids.shape[1] == 1 and input_ids.device.type != "cpu"
        all_visual = False
        if inference and not generated:
            lowest, highest = torch.stack(input_ids.aminmax()).tolist()
            if highest < vocabulary.text_size:
                return table(input_ids)
            all_visual = vocabulary.visual_begin <= lowest and highest < vocabulary.visual_end
        visual_BL = vocabulary.is_visual(input_ids)
        index_BL = visual_BL  # not read without image positions
        if self.image_positions is not None:
            index_BL = index_in_image(visual_BL, vocabulary.image_tokens, before)
        if all_visual:
            ids_P = _tokenizer_ids(vocabulary, input_ids, visual_codes).flatten(0, 1)
            embeds_PD = self.embed_visual(ids_P, index_BL.flatten())
            return embeds_PD.unflatten(0, input_ids.shape).to(table.weight.dtype)
        embeds_BLD = table(input_ids.masked_fill(input_ids >= vocabulary.text_size, 0))
        if self.controls is not None:
            rows_BLD = self.controls((input_ids - vocabulary.visual_end).clamp(0, vocabulary.controls - 1))
            embeds_BLD = torch.where(vocabulary.is_control(input_ids)[..., None], rows_BLD, embeds_BLD)
        several = vocabulary.codes_per_token > 1
        if visual_codes is None and several and (generated or not visual_BL.any()):
            visual_codes = input_ids.new_zeros(*input_ids.shape, vocabulary.codes_per_token)
        ids = _tokenizer_ids(vocabulary, input_ids, visual_codes)
        if generated:
            ids_B1 = ids * (visual_BL[..., None] if several else visual_BL)
            embeds_BD = self.embed_visual(ids_B1[:, 0], index_BL[:, 0]).to(embeds_BLD.dtype)
            return torch.where(visual_BL[..., None], embeds_BD[:, None], embeds_BLD)
        place_P = visual_BL.flatten().nonzero()[:, 0]  # once, as the host waits for a GPU to know their number
        embeds_PD = self.embed_visual(ids.flatten(0, 1)[place_P], index_BL.flatten()[place_P])
        return embeds_BLD.masked_scatter(visual_BL[..., None], embeds_PD.to(embeds_BLD.dtype))


def _tokenizer_ids(vocabulary: Vocabulary, input_ids: Tensor, visual_codes: Tensor | None) -> Tensor:
    """Ids of the image tokenizer, (B,L) or (B,L,C), meaningful at visual positions only."""
    if vocabulary.codes_per_token == 1:
        return vocabulary.tokenizer_ids(input_ids)
    if visual_codes is None:
        raise ValueError(
            f"visual positions carry {vocabulary.codes_per_token} codes with this tokenizer: pass visual_codes"
        )
    return visual_codes
