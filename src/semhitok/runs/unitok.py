"""Run a recipe for UniTok on captioned images: one run of the training loop.

A run lives in one directory, which is that of ``training.loop.train`` and holds in addition::

    recipe.json          what it was run with, last
    text_tokenizer/      the one learned from the captions, where there is one
    model/               model, image processor and text tokenizer, at the end
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from semhitok import distributed
from semhitok.data.sample import ImageSource
from semhitok.data.transforms import to_float
from semhitok.losses import DinoDiscriminator, PatchDiscriminator
from semhitok.recipes.recipe import DataConfig
from semhitok.recipes.unitok_recipe import DinoSize, PatchSize, TextTower, UniTokRecipe
from semhitok.runs.preparation import CACHE_BATCH, Report, TrainingImages, validation_images
from semhitok.runs.semhitok import load_perceptual
from semhitok.tokenizers.checkpoints import stage_is_finished
from semhitok.tokenizers.image_processing import TokenizerImageProcessor
from semhitok.tokenizers.unitok.configuration import UniTokConfig
from semhitok.tokenizers.unitok.initialise import load_clip_weights
from semhitok.tokenizers.unitok.modeling import UniTokModel
from semhitok.tokenizers.unitok.processing import UniTokProcessor
from semhitok.tokenizers.unitok.text import clip_text_tokenizer, text_tower_config, train_text_tokenizer
from semhitok.training import compilation
from semhitok.training.loop import Evaluate, train
from semhitok.training.state import TrainState, derive_seed
from semhitok.training.task import Task
from semhitok.training.tasks.terms import mean_psnr
from semhitok.training.tasks.unitok import INPUT_IDS, UniTokTask
from semhitok.types import UNITOK_STAGE

CAPTIONS_TO_LEARN_FROM = 100_000


def run_unitok(
    recipe: UniTokRecipe,
    source: ImageSource,
    directory: Path,
    *,
    device: torch.device,
    start_from: Path | None = None,
    data_name: str,
    validation: ImageSource | None = None,
    images: TrainingImages | None = None,
    compile_blocks: bool = False,
    report: Report = print,
) -> TrainState:
    """Train a recipe, resuming where a run in ``directory`` was left; a finished run is left as it is.

    Args:
        recipe: what to train.
        source: training images, with captions where the contrastive loss is on.
        directory: of the run.
        device: to train on.
        start_from: a UniTok checkpoint to start from, whose text tokenizer is taken as well.
        data_name: written into the model's provenance.
        validation: images kept out of training, on which reconstruction is measured every ``loop.evaluate_every`` steps
            and at the end (at most 512 of them; mean PSNR of the weights in training).
        images: those of ``source`` where they have been read before; by default they are read here.
        compile_blocks: compile the transformer blocks (``torch.compile``), which pays on GPUs.
        report: takes lines for the user.

    Returns:
        The state at the end; ``interrupted`` if the run was stopped by a signal or by its time limit.

    Raises:
        ValueError: an image has no caption, weights are missing, the checkpoint to start from is of another architecture,
            or a run in the directory does not fit.
    """
    begun = time.perf_counter()  # a time limit covers preparation, too
    if stage_is_finished(directory, UNITOK_STAGE):
        report(f"{directory} is done")
        return TrainState(total_steps=0)
    if distributed.is_main():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=1, default=str))
    if images is None:
        images = TrainingImages(source, recipe.model["image_size"], recipe.data, directory / "cache", report)
    text_tokenizer = None
    if recipe.task.contrastive_weight:
        text_tokenizer = _text_tokenizer(recipe.text, images, directory, start_from)
    model = _starting_model(recipe, text_tokenizer, start_from, report)
    model.to(device)  # pyright: ignore[reportArgumentType]
    task = _task(recipe, model, text_tokenizer)
    if compile_blocks:  # after the task: its weight average copies the model as it is
        report(f"{compilation.compile_blocks(model)} blocks are compiled as they first run")
    feed = images.feed(
        seed=derive_seed(recipe.loop.seed, UNITOK_STAGE),
        device=device,
        from_captions=None if text_tokenizer is None else _InputIds(text_tokenizer),
    )
    evaluate = None
    if validation is not None and recipe.task.reconstructs:
        evaluate = reconstruction_check(model, validation, recipe.data)
    report(f"{recipe.loop.steps} steps of {recipe.loop.batch_size} images")
    state = train(task, feed, recipe.loop, directory, evaluate=evaluate, begun=begun)
    if state.finished:
        config = model.config
        config.stages = [*config.stages, UNITOK_STAGE]
        config.provenance = {**config.provenance, UNITOK_STAGE: _provenance(recipe, data_name, state)}
        if distributed.is_main():
            config.save_pretrained(directory / "model")
        distributed.from_main(0)  # the other ranks wait for the file before they look for it
    return state


def reconstruction_check(model: UniTokModel, source: ImageSource, config: DataConfig) -> Evaluate:
    """A measure for the training loop: mean PSNR (data range [0,1]) of up to 512 images, evenly spaced in ``source``."""
    images = validation_images(source, model.config.image_size, config)

    @torch.no_grad()
    def evaluate(task: Task, state: TrainState) -> dict[str, float]:
        model.eval()  # training drops paths at random
        total = 0.0
        for part in images.split(CACHE_BATCH):
            pixel_values = to_float(part.to(model.device))
            total += float(mean_psnr(model(pixel_values).reconstruction.float(), pixel_values)) * len(part)
        model.train()
        return {"psnr": total / len(images)}

    return evaluate


class _InputIds:
    """Captions to the text tower's ids (B,T), int32, padded to the longest."""

    def __init__(self, text_tokenizer: CLIPTokenizer) -> None:
        self.text_tokenizer = text_tokenizer

    def __call__(self, captions: Sequence[str | None]) -> dict[str, Tensor]:
        texts = [caption for caption in captions if caption is not None]
        if len(texts) < len(captions):
            raise ValueError(
                f"{len(captions) - len(texts)} of {len(captions)} images have no caption: the contrastive loss needs a "
                "text file or a caption field beside every image; set task.contrastive_weight to 0 to train without"
            )
        ids = self.text_tokenizer(texts, padding=True, truncation=True, return_tensors="pt")["input_ids"]
        return {INPUT_IDS: torch.as_tensor(ids, dtype=torch.int32)}


def _text_tokenizer(size: TextTower, images: TrainingImages, directory: Path, start_from: Path | None) -> CLIPTokenizer:
    """The one of the checkpoint, of the earlier part of this run, CLIP's, or a new one."""
    saved = directory / "text_tokenizer"
    for place in (start_from, saved if saved.exists() else None):
        if place is not None:
            return CLIPTokenizer.from_pretrained(place)
    if size.vocab_size is None:
        text_tokenizer = clip_text_tokenizer()
        text_tokenizer.model_max_length = size.context_length
        return text_tokenizer
    captions = images.captions(CAPTIONS_TO_LEARN_FROM)
    if not captions:
        raise ValueError(
            "no image has a caption: the contrastive loss needs a text file or a caption field beside every image; set "
            "task.contrastive_weight to 0 to train without"
        )
    text_tokenizer = train_text_tokenizer(captions, size.vocab_size, context_length=size.context_length)
    if distributed.is_main():
        text_tokenizer.save_pretrained(saved)
    return text_tokenizer


def _starting_model(
    recipe: UniTokRecipe, text_tokenizer: CLIPTokenizer | None, start_from: Path | None, report: Report
) -> UniTokModel:
    config = UniTokConfig(**recipe.model)
    if text_tokenizer is not None:
        size = recipe.text
        tower = text_tower_config(
            text_tokenizer, width=size.width, layers=size.layers, heads=size.heads, embed_dim=config.embed_dim
        )
        config = UniTokConfig(**recipe.model, text_config=tower)
    if start_from is not None:
        model = UniTokModel.from_pretrained(start_from, dtype=torch.float32)
        _same_architecture(config, model.config, start_from)
        return model
    torch.manual_seed(derive_seed(recipe.loop.seed, "model"))
    model = UniTokModel(config)
    if recipe.clip_weights is not None:
        found = load_clip_weights(model, recipe.clip_weights)
        report(
            f"{len(found.loaded)} tensors from {recipe.clip_weights}, {len(found.random)} start at random; "
            f"{len(found.left_out)} of the file are not used"
        )
    return model


def _same_architecture(wanted: UniTokConfig, found: UniTokConfig, place: Path) -> None:
    ours, theirs = _architecture(wanted), _architecture(found)
    different = [f"{name} {theirs.get(name)}, not {value}" for name, value in ours.items() if theirs.get(name) != value]
    if different:
        raise ValueError(f"the checkpoint {place} is of another architecture than the recipe: {'; '.join(different)}")


def _architecture(config: UniTokConfig) -> dict[str, Any]:
    fields = config.to_diff_dict()
    text = fields.pop("text_config", None) or {}
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
    kept = {
        name: value for name, value in fields.items() if name not in ("stages", "provenance", "transformers_version")
    }
    return kept | {f"text {name}": text.get(name) for name in sizes}


def _task(recipe: UniTokRecipe, model: UniTokModel, text_tokenizer: CLIPTokenizer | None) -> UniTokTask:
    perceptual = None
    if recipe.task.perceptual_weight:
        perceptual = load_perceptual(recipe.perceptual, recipe.perceptual_depth).to(model.device)
    # The discriminator's first weights must not depend on what this process did before.
    torch.manual_seed(derive_seed(recipe.loop.seed, UNITOK_STAGE, "discriminator"))
    discriminator = _discriminator(recipe.discriminator) if recipe.task.adversarial_weight else None
    processor = None
    if text_tokenizer is not None:
        processor = UniTokProcessor(TokenizerImageProcessor(size=model.config.image_size), text_tokenizer)
    return UniTokTask(model, recipe.task, perceptual=perceptual, discriminator=discriminator, processor=processor)


def _discriminator(size: DinoSize | PatchSize) -> nn.Module:
    match size:
        case DinoSize():
            return DinoDiscriminator.from_pretrained(size.weights, taps=size.taps, image_size=size.image_size)
        case PatchSize():
            return PatchDiscriminator(size.channels, size.layers)


def _provenance(recipe: UniTokRecipe, data_name: str, state: TrainState) -> dict[str, Any]:
    found: dict[str, Any] = {"recipe": recipe.name, "data": data_name, "date": date.today().isoformat()}
    if recipe.task.perceptual_weight:
        found["perceptual"] = f"{recipe.perceptual} to {recipe.perceptual_depth}"
    if recipe.task.adversarial_weight and isinstance(recipe.discriminator, DinoSize):
        found["discriminator"] = recipe.discriminator.weights
    if recipe.clip_weights is not None:
        found["clip_weights"] = Path(recipe.clip_weights).name
    return found | {"steps": state.step, "samples": state.samples}
