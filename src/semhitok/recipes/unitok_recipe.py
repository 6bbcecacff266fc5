"""What a recipe for UniTok is: model, text tower, discriminator, data handling, losses and steps, as typed values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from semhitok.losses.dino_discriminator import TAPS
from semhitok.recipes.recipe import DataConfig, PerceptualDepth, PerceptualKind
from semhitok.training.loop_config import LoopConfig
from semhitok.training.tasks.unitok_config import UniTokTrainingConfig


@dataclass(frozen=True)
class TextTower:
    """The text side; the defaults are the released model's.

    Attributes:
        vocab_size: None for CLIP's text tokenizer; a number for one of at most so many ids, learned from the captions.
        context_length: ids of the longest text; with CLIP's text tokenizer 77.
        width, layers, heads: of the transformer.
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
        taps: blocks whose output is judged.
        image_size: side in pixels that it sees.
    """

    weights: str = "facebook/dinov2-small"
    taps: tuple[int, ...] = TAPS
    image_size: int = 224


@dataclass(frozen=True)
class PatchSize:
    """The convolutional discriminator.

    Attributes:
        channels: width of its first layer.
        layers: number of halvings.
    """

    channels: int = 64
    layers: int = 3


@dataclass(frozen=True)
class UniTokRecipe:
    """Everything that ``semhitok train`` needs but the data.

    Attributes:
        name: of the recipe.
        model: fields of ``UniTokConfig``, all but the text tower's.
        text: the text tower; not built where ``task.contrastive_weight`` is 0.
        discriminator: of the adversarial loss; not built where its weight is 0.
        clip_weights: file of an open_clip ViTamin whose image and text towers are taken to start with; None starts from
            random weights.
        perceptual, perceptual_depth: network of the perceptual loss, see ``Recipe``.
        data: how images are read.
        loop: batches and steps.
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
        """The settings of a stage: there is one, the recipe itself."""
        return self

    def with_loop(self, stage: str, **changes: Any) -> UniTokRecipe:
        """The recipe with other fields in the loop of its stage."""
        return replace(self, loop=replace(self.loop, **changes))
