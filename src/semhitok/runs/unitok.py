"""UniTok's training on captioned images, in one stage (arXiv 2502.20321).

A run lives in one directory, that of ``training.loop.train``, which also holds::

    recipe.json          the recipe it was last run with
    text_tokenizer/      the text tokenizer, if it is learned from the captions
    model/               model, image processor and text tokenizer, at the end
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from semhitok.data.sample import ImageSource
from semhitok.losses import DinoDiscriminator, PatchDiscriminator
from semhitok.recipes.unitok_recipe import DinoSize, PatchSize, UniTokRecipe
from semhitok.runs.perceptual import load_perceptual
from semhitok.runs.preparation import TrainingImages
from semhitok.runs.stage_runner import PreparedStage, RunOptions, StageRunner
from semhitok.runs.text_tokenizers import learned_text_tokenizer
from semhitok.runs.validation import reconstruction_check
from semhitok.storage.foreign_code import load_without_foreign_code
from semhitok.tokenizers.image_processing import TokenizerImageProcessor
from semhitok.tokenizers.unitok.configuration import UniTokConfig
from semhitok.tokenizers.unitok.initialise import load_clip_weights
from semhitok.tokenizers.unitok.modeling import UniTokModel
from semhitok.tokenizers.unitok.processing import UniTokProcessor
from semhitok.tokenizers.unitok.text import clip_text_tokenizer, text_tower_config, train_text_tokenizer
from semhitok.training.state import TrainState, derive_seed
from semhitok.training.tasks.unitok import INPUT_IDS, UniTokTask
from semhitok.types import UNITOK_STAGE

CAPTIONS_TO_LEARN_FROM = 100_000


def run_unitok(
    recipe: UniTokRecipe,
    source: ImageSource,
    options: RunOptions,
    *,
    validation: ImageSource | None = None,
    images: TrainingImages | None = None,
) -> TrainState:
    """Train a recipe, see ``StageRunner.run``.

    Args:
        recipe: what to train.
        source: training images, with captions if the contrastive loss is on.
        options: directory, device; a starting checkpoint also provides the text tokenizer.
        validation: held-out images, at most 512 of which are used to evaluate the reconstruction (mean PSNR of the
            current weights) every ``loop.evaluate_every`` steps and at the end.
        images: the images of ``source``, if already read; by default they are read here.

    Raises:
        ValueError: an image has no caption, weights are missing, the starting checkpoint has another architecture, or the
            directory holds a run that does not match.
    """
    images = images or TrainingImages(
        source, recipe.model["image_size"], recipe.data, options.directory / "cache", options.report
    )
    return StageRunner(_UniTok(recipe, options, images, validation)).run((UNITOK_STAGE,))


@dataclass
class _UniTok:
    """See ``System``: a single stage, which uses the directory itself."""

    recipe: UniTokRecipe
    options: RunOptions
    images: TrainingImages
    validation: ImageSource | None
    samples = "samples"

    def folder(self, stage: str) -> Path:
        return self.options.directory

    def earlier(self, stage: str) -> Sequence[str]:
        return ()

    def cost(self, stage: str) -> float:
        return 1.0

    def prepare(self, stage: str, start_from: Path | None) -> PreparedStage:
        recipe, loop = self.recipe, self.recipe.loop
        text_tokenizer = self._text_tokenizer(start_from) if recipe.task.contrastive_weight else None
        model = self._starting_model(text_tokenizer, start_from)
        model.to(self.options.device)  # pyright: ignore[reportArgumentType]
        task = self._task(model, text_tokenizer)
        feed = self.images.feed(
            seed=derive_seed(loop.seed, stage),
            device=self.options.device,
            from_captions=None if text_tokenizer is None else _InputIds(text_tokenizer),
        )
        evaluate = None
        if self.validation is not None and recipe.task.reconstructs:
            evaluate = reconstruction_check(model, self.validation, recipe.data)
        batch = f"{loop.batch_size} images"
        return PreparedStage(model, task, feed, batch, model, evaluate, _provenance(recipe))

    def _text_tokenizer(self, start_from: Path | None) -> CLIPTokenizer:
        """The text tokenizer of the checkpoint, of CLIP, or one learned from the captions."""
        size, folder = self.recipe.text, self.options.directory / "text_tokenizer"
        if start_from is not None:
            return load_without_foreign_code(CLIPTokenizer.from_pretrained, start_from)
        vocab_size = size.vocab_size
        if vocab_size is None:
            text_tokenizer = clip_text_tokenizer()
            text_tokenizer.model_max_length = size.context_length
            return text_tokenizer

        def learn() -> CLIPTokenizer:
            captions = self.images.captions(CAPTIONS_TO_LEARN_FROM)
            if not captions:
                raise ValueError(
                    "no image has a caption: the contrastive loss needs a text file or a caption field for every "
                    "image; set task.contrastive_weight to 0 to train without it"
                )
            return train_text_tokenizer(captions, vocab_size, context_length=size.context_length)

        return learned_text_tokenizer(folder, learn, CLIPTokenizer.from_pretrained)

    def _starting_model(self, text_tokenizer: CLIPTokenizer | None, start_from: Path | None) -> UniTokModel:
        recipe, size = self.recipe, self.recipe.text
        config = UniTokConfig(**recipe.model)
        if text_tokenizer is not None:
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
            self.options.report(
                f"{len(found.loaded)} tensors from {recipe.clip_weights}, {len(found.random)} start at random; "
                f"{len(found.left_out)} of the file are not used"
            )
        return model

    def _task(self, model: UniTokModel, text_tokenizer: CLIPTokenizer | None) -> UniTokTask:
        recipe, perceptual, processor = self.recipe, None, None
        if recipe.task.perceptual_weight:
            perceptual = load_perceptual(recipe.perceptual, recipe.perceptual_depth).to(model.device)
        # The discriminator's initial weights must not depend on what this process did before.
        torch.manual_seed(derive_seed(recipe.loop.seed, UNITOK_STAGE, "discriminator"))
        discriminator = _discriminator(recipe.discriminator) if recipe.task.adversarial_weight else None
        if text_tokenizer is not None:
            processor = UniTokProcessor(TokenizerImageProcessor(size=model.config.image_size), text_tokenizer)
        return UniTokTask(model, recipe.task, perceptual=perceptual, discriminator=discriminator, processor=processor)


class _InputIds:
    """Turns captions into the text tower's ids (B,T), int32, padded to the longest."""

    def __init__(self, text_tokenizer: CLIPTokenizer) -> None:
        self.text_tokenizer = text_tokenizer

    def __call__(self, captions: Sequence[str | None]) -> dict[str, Tensor]:
        texts = [caption for caption in captions if caption is not None]
        if len(texts) < len(captions):
            raise ValueError(
                f"{len(captions) - len(texts)} of {len(captions)} images have no caption: the contrastive loss needs a "
                "text file or a caption field for every image; set task.contrastive_weight to 0 to train without it"
            )
        ids = self.text_tokenizer(texts, padding=True, truncation=True, split_special_tokens=True, return_tensors="pt")[
            "input_ids"
        ]
        return {INPUT_IDS: torch.as_tensor(ids, dtype=torch.int32)}


def _same_architecture(wanted: UniTokConfig, found: UniTokConfig, place: Path) -> None:
    ours, theirs = _architecture(wanted), _architecture(found)
    different = [f"{name} {theirs.get(name)}, not {value}" for name, value in ours.items() if theirs.get(name) != value]
    if different:
        raise ValueError(
            f"the architecture of the checkpoint {place} differs from the recipe's: {'; '.join(different)}"
        )


def _architecture(config: UniTokConfig) -> dict[str, Any]:
    fields = config.to_diff_dict()
    text = fields.pop("text_config", None) or {}
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
    kept = {
        name: value for name, value in fields.items() if name not in ("stages", "provenance", "transformers_version")
    }
    return kept | {f"text {name}": text.get(name) for name in sizes}


def _discriminator(size: DinoSize | PatchSize) -> nn.Module:
    match size:
        case DinoSize():
            return DinoDiscriminator.from_pretrained(size.weights, taps=size.taps, image_size=size.image_size)
        case PatchSize():
            return PatchDiscriminator(size.channels, size.layers)


def _provenance(recipe: UniTokRecipe) -> dict[str, Any]:
    found = {}
    if recipe.task.perceptual_weight:
        found["perceptual"] = f"{recipe.perceptual} to {recipe.perceptual_depth}"
    if recipe.task.adversarial_weight and isinstance(recipe.discriminator, DinoSize):
        found["discriminator"] = recipe.discriminator.weights
    if recipe.clip_weights is not None:
        found["clip_weights"] = Path(recipe.clip_weights).name
    return found
