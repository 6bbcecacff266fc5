"""Recipe of a ViT tokenizer: model, teacher, data handling, losses and steps as typed values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from semhitok.recipes.recipe import BUILT_IN_TEACHER, DataConfig, PerceptualDepth, PerceptualKind
from semhitok.training.loop_config import LoopConfig
from semhitok.training.tasks.vit_config import ViTTrainingConfig
from semhitok.types import ViTStage


@dataclass(frozen=True)
class ViTStageRecipe:
    """One stage."""

    loop: LoopConfig
    task: ViTTrainingConfig


@dataclass(frozen=True)
class ViTRecipe:
    """Everything that training needs except the data.

    Attributes:
        name: name of the system.
        model: fields of ``ViTTokenizerConfig`` except the teacher's, the width of its features and ``system``.
        reconstruction: the first stage: the whole tokenizer, with distillation if its losses say so.
        understanding: the second stage, which trains a semantic decoder over the codes of the finished tokenizer; None for
            systems without one.
        teacher, teacher_image_size, teacher_layer: the frozen teacher, see ``Recipe``; read only by systems that use one.
        clustered_table: the quantizer's frozen table holds cluster centres of the teacher's features (VQGAN-LC).
        perceptual, perceptual_depth: network of the perceptual loss, see ``Recipe``.
        data: how images are read.
        cache_limit: teacher features of at most this many bytes are computed once and kept on disk.
    """

    name: str
    model: dict[str, Any]
    reconstruction: ViTStageRecipe
    understanding: ViTStageRecipe | None = None
    teacher: str = BUILT_IN_TEACHER
    teacher_image_size: int = 128
    teacher_layer: int = -2
    clustered_table: bool = False
    perceptual: PerceptualKind = "vgg"
    perceptual_depth: PerceptualDepth = "conv5_3"
    data: DataConfig = field(default_factory=DataConfig)
    cache_limit: int = 16 * 2**30

    @property
    def stages(self) -> tuple[ViTStage, ...]:
        """The stages that the system has, in order."""
        return ("reconstruction",) if self.understanding is None else ("reconstruction", "understanding")

    @property
    def uses_teacher(self) -> bool:
        """Whether a teacher takes part: as input, as target, or in the codebook."""
        semantic = self.model.get("semantic_dim", 0) or self.model.get("semantic_channels", 0)
        return bool(semantic or self.clustered_table)

    def stage(self, name: ViTStage) -> ViTStageRecipe:
        """The settings of a stage.

        Raises:
            ValueError: the system does not have this stage.
        """
        found = self.reconstruction if name == "reconstruction" else self.understanding
        if found is None:
            raise ValueError(f"{self.name} has no stage {name}")
        return found

    def with_loop(self, stage: ViTStage, **changes: Any) -> ViTRecipe:
        """The recipe with changed loop settings of one stage."""
        part = self.stage(stage)
        return replace(self, **{stage: replace(part, loop=replace(part.loop, **changes))})
