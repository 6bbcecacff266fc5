"""Alignment of visual embeddings with the words of their captions, before the language model is trained (not in the paper).

An image's visual embeddings and the text embeddings share one space, the language model's input. A word is predicted for an
image if some of the image's embeddings point in its direction::

    s_w = gain logmeanexp_n (sharpness v_n . e_w) + b_w      v_n, e_w: visual and text embeddings of length 1

and trained by binary cross entropy against the words of the caption, among all words of the micro-batch's captions. No layer
of the language model runs, so an image costs a small fraction of a usual step; and the language model need not infer from few
answers which word a code stands for. The sharpness is low on purpose: it requires an embedding to come as close to its word as
attention needs to find it.

The export also initialises scale and head rows, for a language model that is trained from scratch. Visual embeddings get the
scale of the text embeddings, since only their directions were learned. If the text embeddings were trained too, or
``head_from_embeddings`` says so, the head's visual rows start as these directions, so that codes of similar meaning have similar logits from the first step on.

Shapes: B rows, R positions, I images, N tokens of an image, W words of the batch, S sequences, D channels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semhitok import distributed
from semhitok.data.feed import Batch
from semhitok.data.packed_feed import INPUT_IDS, LABELS, POSITION_IDS
from semhitok.data.packing import IGNORED
from semhitok.mllm import SemHiTokForConditionalGeneration
from semhitok.training.optim import take_step
from semhitok.training.state import TrainState
from semhitok.training.tasks.language import LanguageTask, not_used
from semhitok.training.tasks.language_config import LanguageConfig
from semhitok.training.tasks.precision import autocast

SHARPNESS, GAIN = 10.0, 1.5
RARE = -4.0
"""Initial bias of the words: most words are not in a caption."""
HEAD_LENGTH = 0.5
"""Length of the head's visual rows: short enough that all codes are about equally likely at first."""


class WordAlignmentTask(LanguageTask):
    """Trains the adapter, and with ``trained="all"`` the text embeddings, on captions in batches of a ``PackedFeed``.

    ``trained="adapter"`` keeps the text embeddings, for a pretrained language model. The logged ``loss`` is per image.

    Args:
        model, config: see ``LanguageTask``; only ``optimizer``, ``precision``, ``trained`` and
            ``head_from_embeddings`` of the config are used.
        arguments: the other arguments of ``LanguageTask``.

    Raises:
        ValueError: ``trained`` is "lora", or ``share_head`` is set, although neither layers nor head are used.
    """

    def __init__(self, model: SemHiTokForConditionalGeneration, config: LanguageConfig, **arguments: Any) -> None:
        if config.share_head:
            raise ValueError("aligning words does not use the head: share_head belongs to the stages after it")
        if config.trained == "lora":
            raise ValueError('aligning words trains "adapter" or "all" (adapter and text table), got "lora"')
        super().__init__(model, config, **arguments)
        end = self.processor.tokenizer.eos_token_id
        self._end = IGNORED if end is None else end

    def _parts(self) -> distributed.ShardableParts:
        """Adapter or projector, the text embeddings if they are trained, and the words' biases."""
        self.model.requires_grad_(False)
        parts = super()._parts()
        if self.model.image_positions is not None:
            self.model.image_positions.requires_grad_(False)  # what a code means does not depend on its place
        table = self.model.get_input_embeddings().weight
        table.requires_grad_(self.config.trained == "all")
        words = WordBias(self.model.vocabulary.text_size).to(table.device)
        parts.add_module("words", words)
        self._word_bias = words
        return parts

    def step(self, microbatches: Sequence[Batch], state: TrainState) -> dict[str, float | Tensor]:
        """See ``Task.step``."""
        sums = [self._words(batch) for batch in microbatches]
        images = distributed.average_values({"images": float(sum(count for _, count in sums))})["images"]
        for number, (total, _) in enumerate(sums, start=1):
            with distributed.averaged_gradients(self.trained.parameters(), now=number == len(sums)):
                (total / max(1.0, images)).backward()
        loss = torch.stack([total.detach() for total, _ in sums]).sum() / max(1.0, images)
        found: dict[str, float | Tensor] = {"loss": loss, "images": images}
        return (
            found
            | not_used(microbatches)
            | take_step(self.optimizer, self.config.optimizer, state.step, state.total_steps)
        )

    def export(self, directory: Path | None) -> None:
        """See ``Task.export`` and the module docstring; the model in training is left unchanged.

        A projector keeps its scale, which depends on the images; a code head has no rows for visual ids.
        """
        model = self.model
        if self.projector is not None:
            super().export(directory)
            return
        parts = (model.adapter, model.lm_head)
        kept = [copy.deepcopy(part.state_dict()) for part in parts]
        model.match_scale(per_mlp=False)
        begins = self.config.trained == "all" or self.config.head_from_embeddings
        if begins and model.code_head is None:
            initialise_head_rows(model)
        super().export(directory)
        for part, state in zip(parts, kept, strict=True):
            part.load_state_dict(state)

    def describe(self) -> str:
        """See ``Task.describe``."""
        return super().describe().replace("language", "words", 1)

    def _words(self, batch: Batch) -> tuple[Tensor, int]:
        """The sum of the losses of a batch's images, and their number."""
        model, vocabulary = self.model, self.model.vocabulary
        labels_BR = batch.extras[LABELS]
        place_BR = batch.extras[INPUT_IDS] == vocabulary.placeholder_id
        ignored = torch.tensor([IGNORED, vocabulary.placeholder_id, self._end], device=labels_BR.device)
        text_BR = ~(torch.isin(labels_BR, ignored) | vocabulary.is_control(labels_BR))
        sequence_BR = (batch.extras[POSITION_IDS] == 0).flatten().cumsum(0).view_as(labels_BR) - 1
        words_W, word = labels_BR[text_BR].unique(return_inverse=True)
        said_SW = torch.zeros(int(sequence_BR.max()) + 1, len(words_W), device=labels_BR.device)
        said_SW[sequence_BR[text_BR], word] = 1.0
        tokens = vocabulary.image_tokens
        said_IW = said_SW[sequence_BR[place_BR].view(-1, tokens)[:, 0]]
        with autocast(self.config.precision, labels_BR.device):
            table_WD = model.get_input_embeddings().weight[words_W]
            visual_IND = self.embedded(batch)[0][place_BR].view(-1, tokens, table_WD.shape[1])
        scores_IW = word_scores(visual_IND, table_WD) + self._word_bias.bias[words_W]
        loss = nn.functional.binary_cross_entropy_with_logits(scores_IW, said_IW, reduction="sum")
        return loss, len(said_IW)


class WordBias(nn.Module):
    """A bias for the frequency of each word; saved in training checkpoints, but not in the model."""

    def __init__(self, text_size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((text_size,), RARE))


def word_scores(visual_IND: Tensor, table_WD: Tensor) -> Tensor:
    """Scores (I,W) of each word for each image, in fp32, by the formula above without bias."""
    visual_IND, table_WD = (nn.functional.normalize(each.float(), dim=-1) for each in (visual_IND, table_WD))
    scores_INW = SHARPNESS * visual_IND @ table_WD.T
    return GAIN * (scores_INW.logsumexp(dim=1) - math.log(visual_IND.shape[1]))


@torch.no_grad()
def initialise_head_rows(model: SemHiTokForConditionalGeneration) -> None:
    """Set the head's visual rows to the directions of the visual embeddings after subtracting their mean."""
    vocabulary = model.vocabulary
    device = model.lm_head.weight.device
    visual_SD = model.embed_visual(torch.arange(vocabulary.visual_size, device=device)).float()
    rows_SD = HEAD_LENGTH * nn.functional.normalize(visual_SD - visual_SD.mean(dim=0), dim=-1)
    model.head_rows(vocabulary.visual_begin, vocabulary.visual_end).copy_(rows_SD)
