"""Costs of the unified language model: FLOPs and activations of its layers from one and two of them, the head by formula.

Shapes: B rows, R positions, P visual positions, T labels, D channels, V ids of the head.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import AutoModel

from semhitok.losses.large_head import chunk_tokens_for
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMConfig
from semhitok.mllm.adapter import Adapter
from semhitok.mllm.code_head import CodeHead
from semhitok.runs.planning.costs import Memory
from semhitok.runs.planning.trace import count_flops, peak_bytes, shapes_only, without_weights
from semhitok.training.tasks.language_config import LanguageConfig
from semhitok.training.tasks.lora import add_lora
from semhitok.training.tasks.precision import autocast
from semhitok.types import Embedded

CPU = torch.device("cpu")
FP32, BF16 = 4, 2


@dataclass(frozen=True)
class LanguageCosts:
    """Costs of one setting.

    Attributes:
        config: the model.
        task: what is trained, and how.
        row_length: R.
    """

    config: SemHiTokMLLMConfig
    task: LanguageConfig
    row_length: int

    @cached_property
    def parameters(self) -> dict[str, tuple[int, int]]:
        """Numbers of parameters by part, all and trained."""
        with torch.device("meta"):
            model = SemHiTokForConditionalGeneration(self.config)
            self._freeze(model)
        counts = {}
        table = model.get_input_embeddings()
        parts: dict[str, nn.Module | None] = {
            "text embeddings": table,
            "language model's layers": model.language_model,
            "adapter": model.adapter,
            "image positions": model.image_positions,
            "control rows": model.controls,
            "head": model.lm_head,
            "code head": model.code_head,
            "image tokenizer (frozen)": model.image_tokenizer,
        }
        for name, part in parts.items():
            if part is not None:
                counted = list(part.parameters())
                if name.startswith("language"):
                    counted = [each for each in counted if each is not table.weight]
                trained = sum(each.numel() for each in counted if each.requires_grad)
                counts[name] = sum(each.numel() for each in counted), trained
        return counts

    def _freeze(self, model: Any) -> None:
        """As ``LanguageTask`` does."""
        if self.task.trained == "lora":
            add_lora(model.language_model, rank=self.task.lora_rank, alpha=self.task.lora_alpha)
        if self.task.trained == "adapter":
            model.requires_grad_(False)
        for part in (model.adapter, model.image_positions):
            if part is not None:
                part.requires_grad_(True)
        model.image_tokenizer.requires_grad_(False)

    def _layers(self, count: int, dtype: torch.dtype) -> Any:
        """The language model with a few layers."""
        text = copy.deepcopy(self.config.text_config)
        text.num_hidden_layers, text.vocab_size, text.pad_token_id = count, 8, None
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:count]
        config = SemHiTokMLLMConfig(text_config=text, tokenizer_config=self.config.tokenizer_config, adapter="pixel")

        def build() -> Any:
            layers = AutoModel.from_config(config.text_config, trust_remote_code=False, attn_implementation="sdpa")
            if self.task.trained == "lora":
                add_lora(layers, rank=self.task.lora_rank, alpha=self.task.lora_alpha)
            if self.task.trained == "adapter":
                layers.requires_grad_(False)
            return layers.to(dtype).train()

        return without_weights(build)

    def _pass(self, layers: Any, rows: int) -> Callable[[], None]:
        embeds = torch.zeros(rows, self.row_length, self.config.text_config.hidden_size, requires_grad=True)

        def run() -> None:
            with self._autocast():
                hidden = layers(inputs_embeds=embeds, use_cache=False).last_hidden_state
            hidden.float().sum().backward()

        return run

    def _autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.task.precision, CPU)

    @cached_property
    def _layer_flops(self) -> tuple[int, int]:
        """FLOPs of a row in one layer with the final norm, and in each further one."""
        with shapes_only():
            one, two = (count_flops(self._pass(self._layers(count, torch.float32), 1)) for count in (1, 2))
        return one, two - one

    def flops(self, *, labels: int, visual: int) -> dict[str, float]:
        """Forward and backward FLOPs of one row by part.

        Args:
            labels: T, of the row.
            visual: P, of the row.
        """
        width, ids = self.config.text_config.hidden_size, self.config.vocabulary.size
        one, further = self._layer_flops
        of_head = 2.0 * width * ids * labels * (3 if self.task.trained != "adapter" else 2)
        found = {
            "language model's layers": one + (self.config.text_config.num_hidden_layers - 1) * float(further),
            "head": of_head,
            "adapter": float(self._adapter_flops(visual)),
        }
        if self.config.vocabulary.codes_per_token > 1:
            # Visual labels go to the code head instead; that all labels are text bounds the head from above.
            found["code head"] = float(self._code_head_flops(visual))
        return found

    def _features(self, visual: int) -> Embedded:
        """Features of ids: (1,P,d)."""
        tokenizer = self.config.tokenizer_config
        if getattr(tokenizer, "semantic_dim", None) is not None:
            return Embedded(torch.zeros(1, visual, tokenizer.semantic_dim), torch.zeros(1, visual, tokenizer.pixel_dim))
        return Embedded(None, torch.zeros(1, visual, tokenizer.width))

    def _adapter_flops(self, visual: int) -> int:
        with shapes_only():
            features = self._features(visual)
            dims = {name: None if each is None else each.shape[-1] for name, each in vars(features).items()}
            width = self.config.text_config.hidden_size

            def build() -> Adapter:
                return Adapter(
                    self.config.adapter, semantic_dim=dims["semantic"], pixel_dim=dims["pixel"] or 0, width=width
                )

            adapter = without_weights(build)
            return count_flops(lambda: adapter(features).sum().backward())

    def _code_head_flops(self, visual: int) -> int:
        with shapes_only():
            config = self.config
            head = without_weights(
                lambda: CodeHead(
                    hidden_size=config.text_config.hidden_size,
                    codes=config.vocabulary.codes_per_token,
                    vocab_size=config.vocabulary.visual_size,
                    layers=config.code_head_layers,
                    width=config.code_head_width,
                    heads=config.code_head_heads,
                )
            )
            hidden = torch.zeros(visual, self.config.text_config.hidden_size, requires_grad=True)
            codes = torch.zeros(visual, head.codes, dtype=torch.int64)
            return count_flops(lambda: head.loss(hidden, codes).backward())

    def memory(self, rows: int, divided: int, *, recompute: bool, accumulating: bool = False) -> Memory:
        """Bytes on one GPU, at the moment that needs most.

        Args:
            rows: B, of a micro-batch.
            divided: number of ranks among which parameters are divided; 1 for none.
            recompute: keep only the inputs of layers, and compute the rest again in the backward pass.
            accumulating: a step has several micro-batches, so that gradients are there from the second one on.
        """
        counts, text = self.parameters, self.config.text_config
        sharded, mixed = divided > 1, self.task.precision == "bf16"
        whole = counts["image tokenizer (frozen)"][0]
        total = sum(count for count, _ in counts.values()) - whole
        trained = sum(count for _, count in counts.values())
        in_layers, trained_in_layers = counts["language model's layers"]
        number, compute = text.num_hidden_layers, BF16 if mixed else FP32
        head, head_is_trained = counts["head"][0], counts["head"][1] > 0

        one, kept = self._layer_bytes(rows, sharded, recompute)
        around = self._around_layers(rows)
        chunk = self.task.chunk_tokens or chunk_tokens_for("cuda", self.config.vocabulary.size)
        chunk = min(chunk, rows * self.row_length)
        logits = chunk * self.config.vocabulary.size * (FP32 + (2 * BF16 if mixed else 0)) + (
            head * BF16 if mixed else 0
        )
        of_head = head * FP32 if head_is_trained else 0
        rest = (total - in_layers) * FP32 if sharded else 0
        # A layer in its backward pass: its gradients, their copy that is averaged, and that of the layer after it; it and the
        # layer before it are gathered, and the buffer from which that was copied is still there.
        gradients_of_one = trained_in_layers * (compute + 2 * FP32) / number if sharded else 0
        layer, first = (
            3 * in_layers * compute / number if sharded else 0,
            in_layers * compute / number if sharded else 0,
        )
        at_the_end = 2 * (trained - trained_in_layers) * FP32 if sharded else 0
        all_gradients, in_layers_only = FP32 * trained / divided, FP32 * trained_in_layers / divided
        before = all_gradients if accumulating else 0.0
        # Gradients, what is gathered, activations, logits: while the head, the last layer, the first layer are computed, and
        # while the gradients of everything around the layers are averaged.
        moments = (
            (before, rest + of_head, around + number * kept, logits),
            (before, rest + of_head + layer + gradients_of_one, around + (number - 1) * kept + one, 0.0),
            (max(before, in_layers_only), rest + of_head + first + gradients_of_one, around + one, 0.0),
            (all_gradients, rest + at_the_end, around, 0.0),
        )
        gradients, gathered, activations, of_logits = max(moments, key=sum)
        return Memory(
            weights=FP32 * (total / divided + whole),
            gradients=gradients,
            optimizer=2 * FP32 * trained / divided,
            gathered=gathered,
            activations=activations,
            logits=of_logits,
        )

    def _around_layers(self, rows: int) -> float:
        """Embeddings and their copies, the hidden states that the head reads and their gradients, and the mask of packed rows."""
        hidden = rows * self.row_length * self.config.text_config.hidden_size * FP32 * 4.0
        return hidden + rows * self.row_length**2 * (1 + FP32)

    def _layer_bytes(self, rows: int, sharded: bool, recompute: bool) -> tuple[float, float]:
        """Bytes of one layer while it is computed forward and backward, and what each other layer keeps meanwhile."""
        # Gathered parameters have the dtype of the computation already; otherwise autocast makes copies.
        dtype = torch.bfloat16 if sharded and self.task.precision == "bf16" else torch.float32
        one, two = (self._peak(count, rows, dtype) for count in (1, 2))
        inputs = rows * self.row_length * self.config.text_config.hidden_size * FP32
        return one, inputs if recompute else two - one

    def _peak(self, count: int, rows: int, dtype: torch.dtype) -> float:
        """The largest allocation of some layers' forward and backward passes, without gradients of their parameters."""
        key = count, rows, dtype
        if key not in self._peaks:
            with shapes_only():
                layers = self._layers(count, dtype)
                run = self._pass(layers, rows)
                found = peak_bytes(run, [*layers.parameters(), *layers.buffers()])
                gradients = sum(
                    each.numel() * each.element_size() for each in layers.parameters() if each.requires_grad
                )
            self._peaks[key] = max(0.0, found - gradients)
        return self._peaks[key]

    @cached_property
    def _peaks(self) -> dict[tuple[int, int, torch.dtype], float]:
        return {}
