"""Configuration of a teacher: a frozen vision tower, its input size, and the features that are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from semhitok.storage.configuration_fields import checked_fields, in_field
from semhitok.teachers.efficientnet import EfficientNetLiteConfig

# The published EfficientNet-Lite weights expect (x - 127) / 128 for x in [0,255].
EFFICIENTNET_MEAN = (127 / 255,) * 3
EFFICIENTNET_STD = (128 / 255,) * 3
# Blocks of Lite0 up to the last one of its stride-16 grid (112 channels).
EFFICIENTNET_LITE0_BLOCKS = 11


class TeacherConfig(PreTrainedConfig):
    """Configuration of a :class:`~semhitok.teachers.Teacher`; nests in a tokenizer's configuration.

    Fields left at ``None`` take the default of the kind of backbone, so ``TeacherConfig()`` is the built-in teacher.

    Args:
        backbone_config: configuration of a transformers vision tower with patch tokens (SigLIP, SigLIP2, CLIP, DINOv2
            ...), or its dictionary; ``None`` is EfficientNet-Lite0 cut at its stride-16 grid.
        image_size: side in pixels of the square images that the tokenizer feeds the teacher.
        layer: index into the backbone's ``hidden_states``; -1 is the last block's output *before* the final norm
            (SigLIP, SigLIP2, CLIP, DINOv2). The paper does not name a layer; TokenFlow, TA-Tok and VILA-U use the
            penultimate, hence -2 for transformers' towers. EfficientNet supports only -1: cut it with ``num_blocks``.
        image_mean, image_std: RGB normalisation in units of [0,1]; (0.5, 0.5, 0.5) each for transformers' towers.
        normalize_features: apply a LayerNorm without parameters to each token. ``False`` by default for transformers'
            towers, as in the paper; ``True`` for the built-in one, whose convolutional features differ in scale between
            channels and images.

    Raises:
        ValueError: a size, mean or deviation is invalid, or the backbone does not have the layer.
    """

    model_type = "semhitok_teacher"
    sub_configs = {"backbone_config": AutoConfig}  # pyright: ignore

    @checked_fields
    def __init__(
        self,
        backbone_config: PreTrainedConfig | dict[str, Any] | None = None,
        image_size: int = 128,
        layer: int | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        normalize_features: bool | None = None,
        **kwargs: Any,
    ) -> None:
        if backbone_config is None:
            backbone_config = EfficientNetLiteConfig.lite0(num_blocks=EFFICIENTNET_LITE0_BLOCKS)
        elif isinstance(backbone_config, dict):
            if "model_type" not in backbone_config:
                raise ValueError("backbone_config has no model_type, such as 'siglip_vision_model'.")
            with in_field("backbone_config"):
                backbone_config = AutoConfig.for_model(**backbone_config)
        self.backbone_config = backbone_config
        built_in = self.built_in
        self.image_size = image_size
        self.layer = layer if layer is not None else (-1 if built_in else -2)
        self.image_mean = list(image_mean or (EFFICIENTNET_MEAN if built_in else (0.5,) * 3))
        self.image_std = list(image_std or (EFFICIENTNET_STD if built_in else (0.5,) * 3))
        self.normalize_features = built_in if normalize_features is None else normalize_features
        if image_size < 1:
            raise ValueError(f"The teacher's image_size is {image_size}, but must be at least 1 pixel.")
        if len(self.image_mean) != 3 or len(self.image_std) != 3 or min(self.image_std) <= 0:
            raise ValueError(
                "image_mean and image_std need three numbers each, std above 0, "
                f"not {self.image_mean} and {self.image_std}."
            )
        if built_in and self.layer != -1:
            raise ValueError(
                f"layer is {self.layer}, but EfficientNet supports only -1: cut it with num_blocks instead."
            )
        super().__init__(**kwargs)

    @property
    def built_in(self) -> bool:
        """Whether the backbone is this package's EfficientNet-Lite rather than a transformers tower."""
        return isinstance(self.backbone_config, EfficientNetLiteConfig)

    @classmethod
    def efficientnet_lite0(cls, image_size: int = 128) -> TeacherConfig:
        """The built-in teacher: EfficientNet-Lite0, 112 channels, one token per 16 pixels (8x8 at 128)."""
        return cls(image_size=image_size)


AutoConfig.register(TeacherConfig.model_type, TeacherConfig, exist_ok=True)
