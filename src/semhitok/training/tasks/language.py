"""Training of the unified model: next-token prediction over text and images in packed rows (paper, section 3.3).

Shapes: B rows, R positions, T labelled positions, K images of a row, I images in all, N tokens of an image, C codes per token,
D channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semhitok import distributed
from semhitok.data.feed import Batch
from semhitok.data.packed_feed import (
    BAD_RECORDS,
    FROM_PIXELS,
    IMAGE_IDS,
    INPUT_IDS,
    LABELS,
    LEFT_OUT,
    NO_IMAGE,
    POSITION_IDS,
)
from semhitok.data.packing import IGNORED
from semhitok.data.transforms import to_float
from semhitok.distributed import broadcast_parameters
from semhitok.losses.large_head import large_head_loss
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.continuous import ContinuousProjector
from semhitok.mllm.packed_attention import PackedSequences, by_sequence, is_possible
from semhitok.training.compilation import has_compiled_blocks, repeated_blocks
from semhitok.training.optim import MuonWithAdamW, Optimizer, build_adamw, initialise_states, take_step
from semhitok.training.state import TrainState
from semhitok.training.tasks.language_config import LanguageConfig
from semhitok.training.tasks.lora import add_lora, merged_tensors
from semhitok.training.tasks.precision import autocast
from semhitok.training.tasks.shared_head import merged_head, share_head

FILE_SIZE = "5GB"
"""Largest file of exported weights; larger models become several files and an index."""


@dataclass(frozen=True)
class _Labelled:
    """The positions of a micro-batch whose next token has a label.

    Attributes:
        places_T: index of each into the flattened positions (B,R-1).
        image_T: whether its label is a visual id.
        image_count: number of those; known on the host, like T.
    """

    places_T: Tensor
    image_T: Tensor
    image_count: int


class LanguageTask:
    """Trains ``model`` in place, on batches of a ``PackedFeed``.

    The loss is the mean over labelled positions of all micro-batches and ranks, visual ones weighted by ``image_weight``; a
    visual position with C codes counts as one, with the mean of their losses. Logged are ``loss`` and, unweighted and only for
    steps with such labels, ``loss/text`` and ``loss/image``.

    Args:
        model: see ``SemHiTokForConditionalGeneration``.
        config: see ``LanguageConfig``.
        processor: exported with the model.
        projector: feeds the teacher's continuous features instead of ids (LLaVA's upper bound) and is trained instead of the
            model's adapter. Image positions must then have no labels.
        mesh: divide the trained modules among these ranks (``distributed.shard``); the image tokenizer stays whole. Parameters
            may then still be on the CPU.
    """

    def __init__(
        self,
        model: SemHiTokForConditionalGeneration,
        config: LanguageConfig,
        *,
        processor: SemHiTokMLLMProcessor,
        projector: ContinuousProjector | None = None,
        mesh: distributed.DeviceMesh | None = None,
    ) -> None:
        self.model, self.config, self.processor, self.projector = model, config, processor, projector
        self.merges = config.trained == "lora"
        if config.share_head:
            if mesh is not None:
                raise ValueError("share_head adds up whole rows: it cannot be used with --shard")
            share_head(model)
        self.trained = self._parts()
        self.trained.train()
        broadcast_parameters(self.trained)
        if mesh is not None:
            distributed.shard(
                self.trained,
                repeated_blocks(model.language_model),
                mesh,
                precision=torch.bfloat16 if config.precision == "bf16" else None,
                whole=model.image_tokenizer.parameters(),
            )
        self.optimizer = self._build_optimizer(mesh)
        initialise_states(self.optimizer)

    def _build_optimizer(self, mesh: distributed.DeviceMesh | None) -> Optimizer:
        if not self.config.muon:
            return build_adamw(self.trained, self.config.optimizer)
        if mesh is not None:
            raise ValueError("muon needs whole matrices: it cannot be used with --shard")
        linear = [each for each in self.model.language_model.modules() if isinstance(each, nn.Linear)]
        matrices = [each.get_parameter("weight") for each in linear if each is not self.model.lm_head]
        return MuonWithAdamW(self.trained, matrices, self.config.optimizer)

    def _parts(self) -> distributed.ShardableParts:
        """The trained modules; their frozen parameters have ``requires_grad`` False."""
        model, config = self.model, self.config
        if self.merges:
            add_lora(model.language_model, rank=config.lora_rank, alpha=config.lora_alpha)
            model.language_model.to(model.lm_head.weight.device)
        if config.trained == "adapter":
            model.requires_grad_(False)
        for part in (model.adapter, model.image_positions):  # of ids, which a projector replaces
            if part is not None:
                part.requires_grad_(self.projector is None)
        if config.checkpoint_activations:
            model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        return distributed.ShardableParts(
            model=model, **({} if self.projector is None else {"projector": self.projector})
        )

    def step(self, microbatches: Sequence[Batch], state: TrainState) -> dict[str, float | Tensor]:
        """See ``Task.step``."""
        prepared = [self._labels(batch) for batch in microbatches]
        images = sum(labelled.image_count for labelled in prepared)
        texts = sum(len(labelled.places_T) for labelled in prepared) - images
        counts = distributed.average_values({"text": float(texts), "image": float(images)})
        weight = self.config.image_weight
        labels = max(1.0, counts["text"] + weight * counts["image"])
        sums: dict[str, Tensor] = {}
        apart = self._attends_by_sequence()
        with by_sequence(self.model.language_model) if apart else nullcontext():
            for number, (batch, labelled) in enumerate(zip(microbatches, prepared, strict=True), start=1):
                last = number == len(microbatches)
                distributed.reduce_between_nodes(self.trained, now=last)
                total, by_kind = self.trained(self._loss, batch, labelled, apart)
                with distributed.averaged_gradients(self.trained.parameters(), now=last):
                    (total / labels).backward()
                for name, value in by_kind.items():
                    sums[name] = sums[name] + value if name in sums else value
        found: dict[str, float | Tensor] = {"loss": (sums["text"] + weight * sums["image"]) / labels}
        found |= {f"loss/{name}": sums[name] / count for name, count in counts.items() if count}
        found |= {f"tokens/{name}": count for name, count in counts.items()}
        return (
            found
            | not_used(microbatches)
            | take_step(self.optimizer, self.config.optimizer, state.step, state.total_steps)
        )

    def preview(self, batch: Batch) -> None:
        """None: generation is measured by the evaluation."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """The trained parameters and the optimizer; frozen parameters come from the starting model."""
        return {"trained": self._parameters(), "optimizer": self.optimizer.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; strict."""
        own, given = self._parameters(), state["trained"]
        if own.keys() != given.keys():
            different = sorted(own.keys() ^ given.keys())
            raise ValueError(
                f"checkpoint and run train different parameters, {len(different)} of them: {different[0]} ..."
            )
        for name, parameter in own.items():
            parameter.copy_(given[name])
        self.optimizer.load_state_dict(state["optimizer"])

    def export(self, directory: Path | None) -> None:
        """Write model, processor and projector; LoRA and a shared head are merged, so that any model is an ordinary one."""
        tensors = merged_tensors(self.model) if self.merges else self.model.state_dict().items()
        weights = distributed.gather_on_main(merged_head(self.model, tensors))
        of_projector = distributed.gather_on_main({} if self.projector is None else self.projector.state_dict().items())
        if directory is None:
            return
        self.model.save_pretrained(directory, state_dict=weights, max_shard_size=FILE_SIZE)
        self.processor.save_pretrained(directory)
        if self.projector is not None:
            self.projector.save(directory, of_projector)

    def describe(self) -> str:
        """See ``Task.describe``."""
        trained = sum(parameter.numel() for parameter in self._parameters().values())
        count = sum(parameter.numel() for parameter in self.model.parameters())
        return f"language ({self.config.trained}): {trained / 1e6:.2f}M of {count / 1e6:.2f}M parameters are trained"

    def _parameters(self) -> dict[str, nn.Parameter]:
        return {name: each for name, each in self.trained.named_parameters() if each.requires_grad}

    def _labels(self, batch: Batch) -> _Labelled:
        following = batch.extras[LABELS][:, 1:].flatten()
        # Masks as indices would make the host wait for a GPU each time; these two numbers are all that it needs.
        places_T = (following != IGNORED).nonzero()[:, 0]
        image_T = following.index_select(0, places_T) == self.model.vocabulary.placeholder_id
        return _Labelled(places_T, image_T, int(image_T.sum()))

    def _attends_by_sequence(self) -> bool:
        """See ``LanguageConfig.attention``."""
        language_model, wanted = self.model.language_model, self.config.attention
        if wanted == "auto":
            on_cpu = self.model.lm_head.weight.device.type == "cpu"
            return not on_cpu and is_possible(language_model) and not has_compiled_blocks(language_model)
        if wanted == "sequences" and not is_possible(language_model):
            raise ValueError(
                f"attention is sequences, but {type(language_model).__name__} has layers with a sliding window or an attention "
                'of its own: set it to "masked"'
            )
        return wanted == "sequences"

    def _loss(self, batch: Batch, labelled: _Labelled, apart: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the losses, and the unweighted sums by kind, detached.

        Args:
            apart: attend sequence by sequence.
        """
        model = self.model
        position_ids = batch.extras[POSITION_IDS]
        attention = {"position_ids": position_ids, "use_cache": False}
        if apart:
            attention["packed_sequences"] = PackedSequences.of(position_ids)
        with autocast(self.config.precision, position_ids.device):
            assert self.projector is None or not labelled.image_count, "continuous features have no ids to predict"
            embeds_BRD, filled_BR, codes = self.embedded(batch)
            hidden_BRD = model.body(inputs_embeds=embeds_BRD, **attention).last_hidden_state
            assert hidden_BRD is not None
            places_T, image_T, weight = labelled.places_T, labelled.image_T, self.config.image_weight
            hidden = hidden_BRD[:, :-1].flatten(0, 1)
            in_head = places_T if model.code_head is None else places_T[~image_T]
            total, losses = large_head_loss(
                hidden.index_select(0, in_head),
                model.lm_head.weight,
                filled_BR[:, 1:].flatten().index_select(0, in_head),
                factors_N=torch.where(image_T, weight, 1.0) if weight != 1 and model.code_head is None else None,
                chunk_tokens=self.config.chunk_tokens,
            )
            of_image = losses.new_zeros(()) if model.code_head is not None else torch.where(image_T, losses, 0.0).sum()
            by_kind = {"text": losses.sum() - of_image, "image": of_image}
            if model.code_head is not None and labelled.image_count:
                assert codes is not None
                of_images = places_T[image_T]
                image = model.code_head.loss(
                    hidden.index_select(0, of_images), codes[:, 1:].flatten(0, 1).index_select(0, of_images)
                )
                total, by_kind["image"] = total + weight * image, image.detach()
            elif model.code_head is not None:  # every rank uses the code head in every step
                total = total + 0.0 * sum(parameter.sum() for parameter in model.code_head.parameters())
        return total, by_kind

    def embedded(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Input embeddings (B,R,D), their ids (B,R), and codes (B,R,C) if C > 1, otherwise None.

        Continuous features have no ids: their positions keep the placeholder.
        """
        ids_BR = batch.extras[INPUT_IDS]
        if self.projector is not None:
            pixels = _pixels(batch, batch.extras[IMAGE_IDS])
            return self.projector.embeds(self.model, ids_BR, pixels), ids_BR, None
        filled_BR, codes = self._fill(batch)
        return self.model.embed(filled_BR, codes), filled_BR, codes

    @torch.no_grad()
    def _fill(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Ids (B,R) with image ids in place of placeholders, and codes (B,R,C) if C > 1, otherwise None."""
        image_ids = batch.extras[IMAGE_IDS]
        if batch.images_BCHW.shape[1]:  # else all images have ids
            pixels = _pixels(batch, image_ids)
            with torch.autocast(pixels.device.type, enabled=False):  # ids must not depend on the training precision
                found = self.model.image_tokenizer.encode(pixels).ids
            awaited = (_first(image_ids) == FROM_PIXELS).view(*image_ids.shape[:2], *[1] * (image_ids.ndim - 2))
            image_ids = image_ids.masked_scatter(awaited, found.to(image_ids.dtype))
        # (I,N) or (I,N,C): those present first, in order of rows.
        absent = _first(image_ids).flatten() == NO_IMAGE
        in_order = image_ids.flatten(0, 1).index_select(0, absent.int().argsort(stable=True))
        on_cpu = image_ids.device.type == "cpu"
        present = in_order[: len(absent) - int(absent.sum())] if on_cpu else in_order
        return self.model.vocabulary.place_image_ids(batch.extras[INPUT_IDS], present, check=on_cpu)


def not_used(microbatches: Sequence[Batch]) -> dict[str, float | Tensor]:
    """Numbers of bad and left-out records, for the log."""
    return {name: sum(batch.extras[name].sum() for batch in microbatches) for name in (BAD_RECORDS, LEFT_OUT)}


def _first(image_ids: Tensor) -> Tensor:
    """The first id of each image: (B,K)."""
    return image_ids.flatten(2)[..., 0] if image_ids.shape[1] else image_ids.new_zeros(image_ids.shape[:2])


def _pixels(batch: Batch, image_ids: Tensor) -> Tensor:
    """The images that are not tokenized yet, in order of rows: (I,3,H,W) in [-1,1]."""
    images = batch.images_BCHW
    counts_B = (_first(image_ids) == FROM_PIXELS).sum(dim=1)
    there_BM = torch.arange(images.shape[1], device=images.device) < counts_B[:, None]
    return to_float(images[there_BM])
