"""Costs of the unified language model: FLOPs and activations of its layers from one and two of them, the head by formula.

Shapes: B rows, R positions, P visual positions, T labels, D channels, V ids of the head.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMConfig
from semhitok.mllm.adapter import Adapter
from semhitok.mllm.code_head import CodeHead
from semhitok.recipes import RECIPES
from semhitok.recipes.language_recipe import LanguageRecipe, LanguageStage
from semhitok.runs.language_models import small_config
from semhitok.runs.planning.costs import Memory, Part, Stage
from semhitok.runs.planning.published import language_config, tokenizer_config
from semhitok.runs.planning.tokenizers import encoding_flops
from semhitok.runs.planning.trace import count_flops, peak_bytes, shapes_only, without_weights
from semhitok.storage.foreign_code import load_without_foreign_code
from semhitok.tokenizers.checkpoints import builtin_checkpoint
from semhitok.training.tasks.language_config import LanguageConfig
from semhitok.training.tasks.lora import add_lora
from semhitok.training.tasks.precision import autocast
from semhitok.types import Embedded, LanguageStageName

CPU = torch.device("cpu")
# Typical lengths in ids, to estimate how many images are in a row; see recipes.language.
CAPTION, CHAT, TEXT = 70, 110, 300
FP32, BF16 = 4, 2


def model_config(recipe: LanguageRecipe) -> SemHiTokMLLMConfig:
    """Configuration of the model that the recipe trains; nothing is downloaded.

    Raises:
        ValueError: sizes of a part are not known.
    """
    if recipe.language_model is not None:
        text = language_config(recipe.language_model)
    else:
        text = small_config(recipe.size, recipe.size.vocab_size, end=1, padding=0)
    return SemHiTokMLLMConfig(text_config=text, tokenizer_config=_tokenizer(recipe.tokenizer), adapter=recipe.adapter)


def _tokenizer(name: str) -> Any:
    place = Path(builtin_checkpoint(name))
    if (place / "config.json").is_file():
        return load_without_foreign_code(AutoConfig.from_pretrained, place)
    made_by = next((part for part in Path(name).parts if part in RECIPES), None)
    if made_by is not None:  # the folder that this recipe will write
        return tokenizer_config(RECIPES[made_by](), enhanced=True)
    raise ValueError(f"the sizes of the image tokenizer {name} are not known here: name a folder with its config.json")


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
        model.adapter.requires_grad_(True)
        model.image_tokenizer.requires_grad_(False)

    def _layers(self, count: int, dtype: torch.dtype) -> Any:
        """The language model with a few layers."""
        text = copy.deepcopy(self.config.text_config)
        text.num_hidden_layers, text.vocab_size, text.pad_token_id = count, 8, None
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:count]
        config = SemHiTokMLLMConfig(text_config=text, tokenizer_config=self.config.tokenizer_config, adapter="pixel")

        def build() -> Any:
            from transformers import AutoModel

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

    def memory(self, rows: int, divided: int, *, recompute: bool) -> Memory:
        """Bytes on one GPU, at the moment that needs most.

        Args:
            rows: B, of a micro-batch.
            divided: number of ranks among which parameters are divided; 1 for none.
            recompute: keep only the inputs of layers, and compute the rest again in the backward pass.
        """
        counts, text = self.parameters, self.config.text_config
        sharded, mixed = divided > 1, self.task.precision == "bf16"
        whole = counts["image tokenizer (frozen)"][0]
        total = sum(count for count, _ in counts.values()) - whole
        trained = sum(count for _, count in counts.values())
        in_layers, trained_in_layers = counts["language model's layers"]
        layer, trained_in_layer = in_layers / text.num_hidden_layers, trained_in_layers / text.num_hidden_layers
        compute = BF16 if mixed else FP32
        ids = self.config.vocabulary.size
        head, head_is_trained = counts["head"][0], counts["head"][1] > 0

        activations = self._activations(rows, sharded, recompute) + self._around_layers(rows)
        chunk = min(self.task.chunk_tokens, rows * self.row_length)
        logits = chunk * ids * (FP32 + (BF16 + BF16 if mixed else 0)) + (head * BF16 if mixed else 0)
        gathered = 0.0
        if sharded:
            rest, trained_rest = total - in_layers, trained - trained_in_layers
            # While the first layer's gradients are averaged: itself, the next gathered one, gradients twice (whole and cast).
            of_layers = 2 * layer * compute + trained_in_layer * (compute + FP32)
            # At the end of the backward pass: gradients of everything around the layers, whole and as one buffer.
            at_the_end = 2 * trained_rest * FP32
            while_layers = of_layers + (head * FP32 if head_is_trained else 0) + activations
            in_the_head = layer * compute + (head * FP32 if head_is_trained else 0) + activations + logits
            most = max(while_layers, in_the_head, at_the_end)
            gathered = rest * FP32 + max(0.0, most - activations - logits)
        return Memory(
            weights=FP32 * (total / divided + whole),
            gradients=FP32 * trained / divided,
            optimizer=2 * FP32 * trained / divided,
            gathered=gathered,
            activations=activations,
            logits=logits,
        )

    def _around_layers(self, rows: int) -> float:
        """Embeddings and their copies, the hidden states that the head reads and their gradients, and the mask of packed rows."""
        hidden = rows * self.row_length * self.config.text_config.hidden_size * FP32 * 4.0
        return hidden + rows * self.row_length**2 * (1 + FP32)

    def _activations(self, rows: int, sharded: bool, recompute: bool) -> float:
        """Bytes that the layers keep for the backward pass, with what is computed meanwhile."""
        dtype = torch.bfloat16 if sharded and self.task.precision == "bf16" else torch.float32
        one, two = (self._peak(count, rows, dtype) for count in (1, 2))
        kept = rows * self.row_length * self.config.text_config.hidden_size * FP32 if recompute else two - one
        return one + (self.config.text_config.num_hidden_layers - 1) * kept

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


def images_per_row(settings: LanguageStage, image_tokens: int) -> float:
    """About how many images are in a packed row, from the mix and typical lengths of texts."""
    mix, image = settings.mix, image_tokens + 2
    kinds = ((mix.text, TEXT, 0), (mix.caption, CAPTION, 1), (mix.text_to_image, CAPTION, 1), (mix.chat, CHAT, 1))
    length = sum(share * (words + image * has) for share, words, has in kinds)
    images = sum(share * has for share, _, has in kinds)
    return settings.row_length * images / length


def language_stage(recipe: LanguageRecipe, name: LanguageStageName) -> tuple[Stage, LanguageCosts]:
    """The costs of a stage of a recipe.

    Raises:
        ValueError: sizes of a part are not known.
    """
    settings = recipe.stage(name)
    config = model_config(recipe)
    costs = LanguageCosts(config, settings.task, settings.row_length)
    images = images_per_row(settings, config.vocabulary.image_tokens)
    visual = min(settings.row_length, round(images * config.vocabulary.image_tokens))
    flops = costs.flops(labels=settings.row_length, visual=visual)
    notes = [f"about {images:.1f} images in a row, and a label at every position"]
    if name == "align":
        flops = {"adapter": flops["adapter"]}
        notes = ["no layer of the language model runs"]
    if not recipe.records.pretokenize or recipe.continuous:
        flops["image tokenizer (frozen)"] = images * encoding_flops(config.tokenizer_config)
        notes.append("images are tokenized in every step")
    parts = [Part(part, total, trained, flops.get(part, 0.0)) for part, (total, trained) in costs.parameters.items()]
    stage = Stage(
        name=name,
        steps=settings.loop.steps,
        batch_size=settings.loop.batch_size,
        accumulation=settings.loop.accumulation,
        unit="rows",
        images=images,
        parts=tuple(parts),
        recompute=settings.task.checkpoint_activations,
        assumptions=tuple(notes),
    )
    return stage, costs
