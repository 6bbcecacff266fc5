"""A complete training recipe: model, data handling and the four stages as typed values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from semhitok.training.loop_config import LoopConfig
from semhitok.training.tasks.pixel_config import PixelConfig
from semhitok.training.tasks.semantic_config import SemanticConfig
from semhitok.types import FitMode, Stage

PerceptualKind = Literal["vgg", "lpips"]
PerceptualDepth = Literal["conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"]

BUILT_IN_TEACHER = "efficientnet-lite0"
CACHE_LIMIT = 16 * 2**30


@dataclass(frozen=True)
class DataConfig:
    """How images are read.

    Attributes:
        fit: how images are made square: centre ``crop`` or ``resize``.
        flip: mirror half of the images.
        memory_limit: a data set of at most this many bytes of decoded images is kept in memory on the training device.
        workers: number of reader processes.
        max_bad_share: tolerated fraction of unreadable images; they are skipped, counted and reported.
    """

    fit: FitMode = "crop"
    flip: bool = True
    memory_limit: int = 8 * 2**30
    workers: int = 2
    max_bad_share: float = 0.05


@dataclass(frozen=True)
class SemanticStage:
    """Stage 1."""

    loop: LoopConfig
    task: SemanticConfig = field(default_factory=SemanticConfig)


@dataclass(frozen=True)
class PixelStage:
    """Stage 2a, 2b or 3."""

    loop: LoopConfig
    task: PixelConfig = field(default_factory=PixelConfig)


@dataclass(frozen=True)
class EnhancedDecoder:
    """Size of the pixel decoder of stage 3.

    Attributes:
        layers, width, heads: sizes of its transformer.
        grow: start from stage 2's decoder, of the same width, and append blocks that initially add zero; otherwise the
            larger decoder starts from random weights, as a wider one must.
    """

    layers: int
    width: int
    heads: int
    grow: bool = False


@dataclass(frozen=True)
class Recipe:
    """Everything that ``semhitok train`` needs except the data.

    Attributes:
        name: name of the recipe.
        teacher: ``efficientnet-lite0`` (built in), or the folder or hub id of a transformers vision tower.
        teacher_image_size: side in pixels of the teacher's input.
        teacher_layer: hidden state used as features; ignored for the built-in teacher.
        model: fields of ``SemHiTokConfig`` except the teacher's.
        enhanced_decoder: decoder of stage 3.
        perceptual: network of the perceptual loss: ``vgg`` (downloaded by ``semhitok data fetch``), or ``lpips``, whose
            files ``vgg16-397923af.pth`` and ``lpips_vgg.pth`` must be in the cache's ``weights`` folder.
        perceptual_depth: deepest VGG layer used; shallower is faster.
        data: how images are read.
        cache_limit: teacher features of at most this many bytes are computed once and kept on disk. Features and stage-1
            ids are cached only for data in memory; otherwise the teacher runs in every step.
        semantic, pixel, pixel_finetune, decoder: the stages. ``joint`` uses the losses of the first two and the loop
            settings of ``pixel``.
        joint_gradient: in stage ``joint``, the pixel losses also reach the semantic branch.
        rounded: weights are rounded to bfloat16 before each stage begins (codebooks are not), so that what the stage leaves
            as it is takes two bytes a weight and its ids never change.
    """

    name: str
    teacher: str
    teacher_image_size: int
    model: dict[str, Any]
    enhanced_decoder: EnhancedDecoder
    semantic: SemanticStage
    pixel: PixelStage
    pixel_finetune: PixelStage
    decoder: PixelStage
    teacher_layer: int = -2
    perceptual: PerceptualKind = "vgg"
    perceptual_depth: PerceptualDepth = "conv5_3"
    data: DataConfig = field(default_factory=DataConfig)
    cache_limit: int = CACHE_LIMIT
    joint_gradient: bool = True
    rounded: bool = False

    def stage(self, name: Stage) -> SemanticStage | PixelStage:
        """The settings of a stage."""
        return self.semantic if name == "semantic" else self.pixel_stage(name)

    def with_loop(self, stage: Stage, **changes: Any) -> Recipe:
        """The recipe with changed loop settings of one stage."""
        part = self.stage(stage)
        name = "pixel" if stage == "joint" else stage.replace("-", "_")
        return replace(self, **{name: replace(part, loop=replace(part.loop, **changes))})

    def pixel_stage(self, stage: Stage) -> PixelStage:
        """The settings of a stage that trains the pixel branch."""
        later = {"pixel-finetune": self.pixel_finetune, "decoder": self.decoder}
        return {"pixel": self.pixel, "joint": self.pixel, **later}[stage]
