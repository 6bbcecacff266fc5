"""Costs of the tokenizers' stages: their own training step, carried out on shapes alone for one and for two images.

The lookup of codes depends on data, so quantizers pass features on, and a lookup counts as the product with its codebook.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, CLIPTextConfig, Dinov2Model

from semhitok.data.feed import Batch
from semhitok.losses import DinoDiscriminator, PatchDiscriminator, VGGPerceptual, dinov2_small_config
from semhitok.quantizers import Quantizer
from semhitok.recipes import Recipe, UniTokRecipe
from semhitok.recipes.unitok_recipe import DinoSize
from semhitok.runs.planning.costs import Memory, Part, Stage
from semhitok.runs.planning.published import tokenizer_config
from semhitok.runs.planning.trace import count_flops, peak_bytes, shapes_only, without_weights
from semhitok.tokenizers import SemHiTokModel, UniTokConfig, UniTokModel
from semhitok.tokenizers.unitok.text import clip_text_tokenizer, text_tower_config
from semhitok.training.state import TrainState
from semhitok.training.task import Task
from semhitok.training.tasks.adversarial import Adversary
from semhitok.training.tasks.pixel import PixelTask, adversarial_config
from semhitok.training.tasks.semantic import SemanticTask
from semhitok.training.tasks.unitok import INPUT_IDS, UniTokTask
from semhitok.types import UNITOK_STAGE, Quantized
from semhitok.types import Stage as StageName

FP32 = 4
LATE = 10**9  # a step at which all losses have begun


@dataclass(frozen=True)
class _Measured:
    """One build: FLOPs of an image, allocations for one and for two images, what stays, and the parts."""

    flops: float
    peaks: tuple[float, float]
    states: Memory
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class TokenizerCosts:
    """Costs of one stage.

    Attributes:
        build: returns task and model without data; called within ``shapes_only``.
        run: forward and backward passes of a micro-batch.
        batch: a micro-batch of some images.
        contrast: whether every rank compares all images of the global batch with all texts.
    """

    build: Callable[[], tuple[Any, Any]]
    run: Callable[[Any, Batch], None]
    batch: Callable[[Any, int], Batch]
    contrast: bool = False

    @cached_property
    def measured(self) -> _Measured:
        """The step of one micro-batch, carried out on shapes alone."""
        with shapes_only():
            task, model = self.build()
            tensors = _tensors(task, model)
            trained = sum(each.numel() for each in tensors if each.requires_grad)
            average = getattr(task, "average", None)
            averaged = 0 if average is None else sum(each.numel() for each in average.module.parameters())
            weights = sum(each.numel() * each.element_size() for each in tensors)
            states = Memory(weights, FP32 * trained, 2 * FP32 * trained, averages=FP32 * averaged)
            parts = tuple(_parts(task, model))
            peaks = []
            for images in (1, 2):
                batch = self.batch(model, images)
                peaks.append(peak_bytes(lambda batch=batch: self.run(task, batch), tensors) - FP32 * trained)
                for each in tensors:
                    each.grad = None
            flops = count_flops(lambda: self.run(task, self.batch(model, 2))) / 2 + sum(_lookup_flops(model).values())
        return _Measured(flops, (peaks[0], peaks[1]), states, parts)

    def memory(self, images: int, batch_size: int) -> Memory:
        """Bytes on one GPU.

        Args:
            images: of a micro-batch.
            batch_size: images of all ranks.
        """
        one, two = self.measured.peaks
        activations = max(0.0, one + (images - 1) * (two - one))
        # Similarities, their softmax and its gradient.
        similarities = 3.0 * FP32 * batch_size**2 if self.contrast else 0.0
        return replace(self.measured.states, activations=activations, logits=similarities)


def _tensors(task: Any, model: nn.Module) -> list[Tensor]:
    """Parameters and buffers of the model, the loss networks and the discriminator."""
    modules = [model, getattr(task, "perceptual", None)]
    adversary = getattr(task, "adversary", None)
    if adversary is not None:
        modules += [adversary.discriminator, *getattr(adversary.discriminator, "_frozen", ())]
    return [each for module in modules if module is not None for each in (*module.parameters(), *module.buffers())]


def encoding_flops(config: Any) -> float:
    """FLOPs of encoding an image."""
    with shapes_only():
        model: Any = without_weights(lambda: AutoModel.from_config(config, trust_remote_code=False)).eval()
        pass_features_on(model)
        pixels = torch.zeros(1, 3, config.image_size, config.image_size)
        return count_flops(lambda: model.encode(pixels)) + sum(_lookup_flops(model).values())


def pass_features_on(model: nn.Module) -> None:
    """Replace the lookup of every quantizer by a function of the same shapes."""
    for module in model.modules():
        if isinstance(module, Quantizer):
            module.forward = MethodType(_features_as_codes, module)


def _features_as_codes(quantizer: Any, z_BND: Tensor, *groups: Tensor) -> Quantized:
    codes = getattr(quantizer, "codes_per_token", 1)
    shape = (*z_BND.shape[:2], codes) if codes > 1 else z_BND.shape[:2]
    loss = z_BND.float().square().mean()
    return Quantized(z_BND, z_BND.new_zeros(shape, dtype=torch.int64), {"codebook": loss, "commitment": loss})


def _lookup_flops(model: Any) -> dict[str, float]:
    """Products of an image's vectors with the codebooks."""
    tokens, found = model.num_tokens if hasattr(model, "num_tokens") else 0, {}
    for name, module in model.named_modules():
        if isinstance(module, Quantizer):
            table = getattr(module, module.codebooks[0])  # (K,D), (C,K,D) or (groups,K,D)
            searched = table[0] if name == "pixel_quantizer" and table.ndim == 3 else table
            found[name] = 2.0 * tokens * searched.numel()
    return found


def _images(model: Any, count: int) -> Batch:
    size = model.config.image_size
    images = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    return Batch(images, torch.arange(count), torch.zeros(count, dtype=torch.bool), {})


def _without_lookup(build: Callable[[], Any]) -> Any:
    model = without_weights(build)
    pass_features_on(model)
    return model


def _perceptual(weight: float, depth: Any) -> Any:
    return without_weights(lambda: VGGPerceptual(deepest_layer=depth)) if weight > 0 else None


def semhitok_costs(recipe: Recipe, name: StageName) -> TokenizerCosts:
    """Costs of a stage; features and ids of the frozen parts are computed in every step."""
    config = tokenizer_config(recipe, enhanced=name == "decoder")

    def build() -> tuple[Any, Any]:
        model = _without_lookup(lambda: SemHiTokModel(config))
        if name == "semantic":
            return SemanticTask(model, recipe.semantic.task), model
        part = recipe.pixel_stage(name).task
        perceptual = _perceptual(part.perceptual_weight, recipe.perceptual_depth)
        task = PixelTask(model, replace(part, adversarial_weight=0.0), perceptual=perceptual)
        task.config = part
        if part.adversarial_weight:
            discriminator = without_weights(lambda: PatchDiscriminator(part.discriminator_channels))
            task.adversary = Adversary(discriminator, adversarial_config(part))
        return task, model

    def run(task: Any, batch: Batch) -> None:
        if name == "semantic":
            task.losses(task._features(batch), batch).terms["loss"].backward()
            return
        forward = task.losses(batch, _late(), 0)
        forward.terms["loss"].backward()
        _train_discriminator(task, forward.target, forward.reconstruction)

    def batch_of(model: Any, count: int) -> Batch:
        return _images(model, count)

    return TokenizerCosts(build, run, batch_of)


def unitok_costs(recipe: UniTokRecipe) -> TokenizerCosts:
    """Costs of UniTok's stage."""
    config = UniTokConfig(**recipe.model, text_config=_text_config(recipe) if recipe.task.contrastive_weight else None)

    def build() -> tuple[Any, Any]:
        model = _without_lookup(lambda: UniTokModel(config))
        perceptual = _perceptual(recipe.task.perceptual_weight, recipe.perceptual_depth)
        task = UniTokTask(model, replace(recipe.task, adversarial_weight=0.0), perceptual=perceptual)
        task.config = recipe.task
        if recipe.task.adversarial_weight:
            discriminator = without_weights(lambda: _discriminator(recipe))
            for frozen in getattr(discriminator, "_frozen", ()):
                frozen.to_empty(device="cpu")
            task.adversary = Adversary(discriminator, recipe.task.adversarial)
        return task, model

    def run(task: Any, batch: Batch) -> None:
        forward = task._losses(batch, _late(), 0)
        forward.terms["loss"].backward()
        if forward.pair is not None:
            _train_discriminator(task, *forward.pair)

    def batch_of(model: Any, count: int) -> Batch:
        batch = _images(model, count)
        if model.config.text_config is not None:
            length = model.config.text_config.max_position_embeddings
            batch.extras[INPUT_IDS] = torch.zeros(count, length, dtype=torch.int64)
        return batch

    return TokenizerCosts(build, run, batch_of, contrast=bool(recipe.task.contrastive_weight))


def _late() -> TrainState:
    return TrainState(total_steps=2 * LATE, step=LATE)


def _train_discriminator(task: Any, target: Tensor, reconstruction: Tensor) -> None:
    """As ``Adversary.step``, without its optimizer step."""
    if task.adversary is None:
        return
    adversary = task.adversary
    adversary.discriminator.requires_grad_(True)
    views = [target, reconstruction.detach().float()] * (2 if adversary.config.consistency_weight else 1)
    adversary.discriminator(torch.cat(views)).float().sum().backward()


def _discriminator(recipe: UniTokRecipe) -> nn.Module:
    size = recipe.discriminator
    if isinstance(size, DinoSize):
        return DinoDiscriminator(Dinov2Model(dinov2_small_config()), taps=size.taps, image_size=size.image_size)
    return PatchDiscriminator(size.channels, size.layers)


def _text_config(recipe: UniTokRecipe) -> CLIPTextConfig:
    size = recipe.text
    sizes = {"width": size.width, "layers": size.layers, "heads": size.heads, "embed_dim": recipe.model["embed_dim"]}
    text_tokenizer = clip_text_tokenizer()
    text_tokenizer.model_max_length = size.context_length
    config = text_tower_config(text_tokenizer, **sizes)
    config.vocab_size = size.vocab_size or config.vocab_size
    return config


def tokenizer_stage(recipe: Recipe | UniTokRecipe, name: Any) -> tuple[Stage, TokenizerCosts]:
    """The costs of a stage of a recipe.

    Raises:
        ValueError: sizes of a part are not known.
    """
    if isinstance(recipe, UniTokRecipe):
        costs, loop, notes = unitok_costs(recipe), recipe.loop, []
    else:
        costs, loop = semhitok_costs(recipe, name), recipe.stage(name).loop
        notes = ["the frozen teacher runs in every step; with cached features or ids it costs nothing"]
    # The step is counted as a whole.
    parts = [*costs.measured.parts, Part("forward and backward passes of all", 0, 0, costs.measured.flops)]
    stage = Stage(
        name=UNITOK_STAGE if isinstance(recipe, UniTokRecipe) else name,
        steps=loop.steps,
        batch_size=loop.batch_size,
        accumulation=loop.accumulation,
        unit="images",
        images=1.0,
        parts=tuple(parts),
        assumptions=tuple(notes),
    )
    return stage, costs


def _parts(task: Task, model: nn.Module) -> list[Part]:
    found = [(name.replace("_", " "), module) for name, module in model.named_children()]
    if getattr(task, "perceptual", None) is not None:
        found.append(("perceptual network", task.perceptual))  # type: ignore[attr-defined]
    if getattr(task, "adversary", None) is not None:
        found.append(("discriminator", task.adversary.discriminator))  # type: ignore[attr-defined]
    parts = []
    for name, module in found:
        count = sum(each.numel() for each in module.parameters())
        trained = sum(each.numel() for each in module.parameters() if each.requires_grad)
        parts.append(Part(name, count, trained, 0.0))
    return parts
