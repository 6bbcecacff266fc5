"""Recipe of UniTok: model, text tower, discriminator, data handling, losses and steps as typed values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from semhitok.losses.dino_discriminator import TAPS
from semhitok.recipes.recipe import DataConfig, PerceptualDepth, PerceptualKind
from semhitok.training.loop_config import LoopConfig
from semhitok.training.tasks.unitok_config import UniTokTrainingConfig


@dataclass(frozen=True)
class TextTower:
    """The text tower; the defaults are those of the released model.

    Attributes:
        vocab_size: None for CLIP's text tokenizer, or the maximum number of ids of one learned from the captions.
        context_length: maximum number of ids of a text; 77 with CLIP's text tokenizer.
        width, layers, heads: sizes of the transformer.
    """

    vocab_size: int | None = None
    context_length: int = 77
    width: int = 768
    layers: int = 12
    heads: int = 12


@dataclass(frozen=True)
class DinoSize:
    """The discriminator on a frozen DINOv2-S.

    Attributes:
        weights: folder or hub id of a transformers DINOv2.
        taps: blocks whose outputs are classified.
        image_size: side in pixels of its input.
    """

    weights: str = "facebook/dinov2-small"
    taps: tuple[int, ...] = TAPS
    image_size: int = 224


@dataclass(frozen=True)
class PatchSize:
    """The convolutional discriminator.

    Attributes:
        channels: width of its first layer.
        layers: number of strided layers.
    """

    channels: int = 64
    layers: int = 3


@dataclass(frozen=True)
class UniTokRecipe:
    """Everything that ``semhitok train`` needs except the data.

    Attributes:
        name: name of the recipe.
        model: fields of ``UniTokConfig`` except the text tower's.
        text: the text tower; not built if ``task.contrastive_weight`` is 0.
        discriminator: discriminator of the adversarial loss; not built if its weight is 0.
        clip_weights: file of an open_clip ViTamin to initialise image and text towers from; None for random weights.
        perceptual, perceptual_depth: network of the perceptual loss, see ``Recipe``.
        data: how images are read.
        loop: settings of the training loop.
        task: losses and optimizers.
    """

    name: str
    model: dict[str, Any]
    loop: LoopConfig
    task: UniTokTrainingConfig
    text: TextTower = field(default_factory=TextTower)
    discriminator: DinoSize | PatchSize = field(default_factory=PatchSize)
    clip_weights: str | None = None
    perceptual: PerceptualKind = "vgg"
    perceptual_depth: PerceptualDepth = "conv5_3"
    data: DataConfig = field(default_factory=DataConfig)

    def stage(self, name: str) -> UniTokRecipe:
        """The settings of the only stage, which are the recipe itself."""
        return self

    def with_loop(self, stage: str, **changes: Any) -> UniTokRecipe:
        """The recipe with changed loop settings."""
        return replace(self, loop=replace(self.loop, **changes))
