"""A frozen vision tower as a teacher: images in, one feature vector per patch out (paper section 3.2).

Shapes: B images, C = 3 channels, H and W pixels, h and w patches per column and row, N = h * w, D feature channels.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    ImageProcessingMixin,
    PreTrainedConfig,
    PreTrainedModel,
    Siglip2VisionModel,
)

from semhitok.storage.cache import weights_path
from semhitok.storage.configuration import sentence_about
from semhitok.storage.foreign_code import load_without_foreign_code
from semhitok.storage.weights import list_keys, load_weights
from semhitok.teachers.configuration import EFFICIENTNET_LITE0_BLOCKS, TeacherConfig
from semhitok.teachers.early_end import find_layers, input_of_layer
from semhitok.teachers.efficientnet import EfficientNetLiteConfig, EfficientNetLiteModel, convert_efficientnet_lite


class Teacher(nn.Module):
    """Frozen features of a vision tower; always in eval mode, without gradients.

    A plain module: inside a ``PreTrainedModel`` its weights are saved and loaded with the rest.

    Args:
        config: backbone, layer and normalisation.
        backbone: the tower of ``config.backbone_config`` with its weights; ``None`` for random weights.

    Raises:
        ValueError: the backbone is not a vision tower with patch tokens, or has no such layer.
    """

    backbone: PreTrainedModel

    def __init__(self, config: TeacherConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.config = config
        backbone_config = config.backbone_config
        _check_backbone(backbone_config)
        deepest = backbone_config.num_hidden_layers
        if not -deepest - 1 <= config.layer <= deepest:
            raise ValueError(f"layer is {config.layer}, but the teacher has {-deepest - 1} to {deepest}.")
        # The default dtype, not the checkpoint's: inside another model the teacher follows that model.
        self.backbone = backbone or AutoModel.from_config(
            backbone_config, dtype=torch.get_default_dtype(), trust_remote_code=False
        )
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        image_size: int | None = None,
        layer: int = -2,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
    ) -> Teacher:
        """Load a transformers vision tower, in float32.

        Args:
            name_or_path: local folder or hub id; for models with text and vision towers (CLIP, SigLIP) the latter is used.
            image_size: side in pixels of its input; by default the size it was trained at.
            layer: see :class:`TeacherConfig`.
            image_mean, image_std: by default those of the checkpoint's image processor; required if it has none.

        Raises:
            ValueError: not a vision tower with patch tokens, missing weights, unknown normalisation, or code of its own.
        """
        with sentence_about(name_or_path):
            backbone_config = load_without_foreign_code(AutoConfig.from_pretrained, name_or_path)
            backbone_config = getattr(backbone_config, "vision_config", backbone_config)
            _check_backbone(backbone_config)
            if image_mean is None or image_std is None:
                image_mean, image_std = _processor_normalisation(name_or_path)
            config = TeacherConfig(
                backbone_config=backbone_config,
                image_size=image_size or _native_image_size(backbone_config),
                layer=layer,
                image_mean=image_mean,
                image_std=image_std,
            )
            backbone, report = load_weights(
                AutoModel.from_pretrained,
                name_or_path,
                config=backbone_config,
                dtype=torch.float32,
                output_loading_info=True,
            )
            if missing := sorted(report["missing_keys"]):
                raise ValueError(
                    f"{name_or_path} lacks weights of the vision tower: {list_keys({'missing keys': missing})}"
                )
            return cls(config, backbone)

    @classmethod
    def efficientnet_lite0(cls, path: str | Path | None = None, *, image_size: int = 128) -> Teacher:
        """The built-in teacher, from the published .pth file (by default the one that ``semhitok data fetch`` saves)."""
        path = path or weights_path("efficientnet_lite0.pth")
        backbone = convert_efficientnet_lite(path, EfficientNetLiteConfig.lite0(EFFICIENTNET_LITE0_BLOCKS))
        return cls(TeacherConfig(backbone.config, image_size), backbone)

    @property
    def dim(self) -> int:
        """D, feature channels per token."""
        return self.config.backbone_config.hidden_size

    @property
    def stride(self) -> int:
        """Side of a patch in pixels."""
        return self.config.backbone_config.patch_size

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches in an image of this size; pixels beyond the last whole patch are ignored.

        Raises:
            ValueError: the image is smaller than one patch.
        """
        if min(height, width) < self.stride:
            raise ValueError(
                f"An image of {height}x{width} pixels is smaller than the teacher's patch of {self.stride}."
            )
        return height // self.stride, width // self.stride

    def size_beside(self, image_size: int, height: int, width: int) -> tuple[int, int]:
        """Height and width at which the teacher sees an image of a tokenizer for ``image_size`` pixels, scaled by the ratio of both."""
        ratio = self.config.image_size / image_size
        return round(height * ratio), round(width * ratio)

    def train(self, mode: bool = True) -> Teacher:
        """Stay frozen and in eval mode, even inside a model in training mode."""
        # Frozen again because from_pretrained inserts new parameters, which require gradients, before it calls eval.
        self.requires_grad_(False)
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixel_values_BCHW: Tensor) -> Tensor:
        """Features at the resolution of the input; only position encodings are interpolated.

        Args:
            pixel_values_BCHW: (B,3,H,W) RGB in [-1,1].

        Returns:
            (B,N,D) features of the patches, row by row, without class and register tokens; in the dtype of the weights.

        Raises:
            ValueError: the image is smaller than one patch, or the backbone's layer is not one token per patch.
        """
        h, w = self.grid(*pixel_values_BCHW.shape[-2:])
        seen_BCHW = pixel_values_BCHW[..., : h * self.stride, : w * self.stride].float()
        mean, std = (
            torch.stack([seen_BCHW.new_full((1, 1), value) for value in statistic])  # filled there, not copied
            for statistic in (self.config.image_mean, self.config.image_std)
        )
        normalised_BCHW = (((seen_BCHW + 1) / 2 - mean) / std).to(self.backbone.dtype)
        hidden = self._hidden_state(normalised_BCHW, h, w)
        prefix = hidden.shape[1] - h * w if hidden.ndim == 3 else -1
        # At most a class token, a distillation token (DeiT) and registers: with more it is not a plain tower of patches.
        if not 0 <= prefix <= 2 + getattr(self.config.backbone_config, "num_register_tokens", 0):
            raise ValueError(
                f"Layer {self.config.layer} of {type(self.backbone).__name__} has shape {tuple(hidden.shape)}, "
                f"which is not one token for each of {h}x{w} patches."
            )
        features_BND = hidden[:, prefix:]
        if self.config.normalize_features:
            features_BND = functional.layer_norm(features_BND.float(), features_BND.shape[-1:])
        return features_BND.to(self.backbone.dtype)

    def _hidden_state(self, normalised_BCHW: Tensor, h: int, w: int) -> Tensor:
        """The hidden state of ``config.layer``; nothing after it is computed and no other one is kept."""
        backbone, layer = self.backbone, self.config.layer
        if isinstance(backbone, EfficientNetLiteModel):  # only its last layer is supported
            return backbone(normalised_BCHW).last_hidden_state
        deepest = backbone.config.num_hidden_layers
        index, layers = layer % (deepest + 1), find_layers(backbone, deepest)
        if index < deepest and layers is not None:
            return input_of_layer(backbone, layers, index, lambda begun: self._run(begun, normalised_BCHW, h, w))
        return self._run(backbone, normalised_BCHW, h, w, output_hidden_states=True).hidden_states[layer]

    def _run(self, backbone: PreTrainedModel, normalised_BCHW: Tensor, h: int, w: int, **options: bool) -> Any:
        """The tower's own forward pass with interpolated position encodings."""
        if isinstance(backbone, Siglip2VisionModel):  # takes flattened patches and their grid
            patches_BNC = rearrange(normalised_BCHW, "b c (h p) (w q) -> b (h w) (p q c)", p=self.stride, q=self.stride)
            mask_BN = torch.ones(patches_BNC.shape[:2], dtype=torch.long, device=patches_BNC.device)
            shapes_B2 = torch.tensor([[h, w]], device=patches_BNC.device).expand(patches_BNC.shape[0], 2)
            return backbone(patches_BNC, mask_BN, shapes_B2, **options)
        if "interpolate_pos_encoding" in inspect.signature(backbone.forward).parameters:
            return backbone(normalised_BCHW, interpolate_pos_encoding=True, **options)
        return backbone(normalised_BCHW, **options)  # DINOv2 always interpolates; others have rotary encodings


def _check_backbone(config: PreTrainedConfig) -> None:
    patch = getattr(config, "patch_size", None)
    if not isinstance(patch, int) or not all(hasattr(config, name) for name in ("hidden_size", "num_hidden_layers")):
        raise ValueError(
            f"'{config.model_type}' cannot be a teacher: it takes a vision tower with one token per square patch, "
            "such as SigLIP, SigLIP2, CLIP or DINOv2."
        )


def _native_image_size(config: PreTrainedConfig) -> int:
    size = getattr(config, "image_size", None)
    if size is None and hasattr(config, "num_patches"):  # SigLIP2 is trained for a number of patches, not a size
        size = math.isqrt(config.num_patches) * config.patch_size
    if isinstance(size, int):
        return size
    raise ValueError(f"'{config.model_type}' states the image size {size}: pass image_size in pixels.")


def _processor_normalisation(name_or_path: str | Path) -> tuple[list[float], list[float]]:
    """Mean and deviation of the checkpoint's image processor, read without building it (it may need torchvision)."""
    try:
        processor, _ = ImageProcessingMixin.get_image_processor_dict(name_or_path)
        return processor["image_mean"], processor["image_std"]
    except (OSError, KeyError):
        raise ValueError(
            f"{name_or_path} has no image processor that states image_mean and image_std: pass both."
        ) from None
