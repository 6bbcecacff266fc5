"""The Inception network whose features FID compares, with the input resizing of each protocol.

Inception-v3 (Szegedy et al., 2015, arXiv 1512.00567) as TensorFlow released it on 2015-12-05: average pooling does not count the
border, the last block pools by maximum. The parameters have the names of the file of weights that torch-fidelity publishes.

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 299
"""Side in pixels of the images that the network sees."""

Pool = Literal["average", "maximum", "shrink"]
Branch = Sequence[Any]
"""Steps in turn: a ``Pool``, or a convolution (name, channels, size of the kernel, stride if it is not 1), or two convolutions in a
tuple, which see the same input and whose outputs are concatenated."""


class Convolution(nn.Module):
    """Convolution without bias, batch norm, ReLU; padded to keep the size unless it has a stride."""

    def __init__(self, channels_in: int, channels: int, kernel: int | tuple[int, int], stride: int = 1, padding=None):
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        if padding is None:
            padding = (height // 2, width // 2) if stride == 1 else 0
        self.conv = nn.Conv2d(channels_in, channels, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x_BCHW)))


class Mixed(nn.Module):
    """Branches that see the same input; their outputs are concatenated."""

    def __init__(self, channels_in: int, *branches: Branch) -> None:
        super().__init__()
        self.branches, self.channels = branches, 0
        for branch in branches:
            channels = channels_in
            for step in branch:
                forks = () if isinstance(step, str) else step if isinstance(step[0], tuple) else (step,)
                outputs = []
                for name, width, *shape in forks:
                    self.add_module(name, Convolution(channels, width, *shape))
                    outputs.append(width)
                channels = sum(outputs) or channels
            self.channels += channels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.cat([self._run(branch, x_BCHW) for branch in self.branches], dim=1)

    def _run(self, branch: Branch, x_BCHW: Tensor) -> Tensor:
        for step in branch:
            if step == "average":
                x_BCHW = F.avg_pool2d(x_BCHW, 3, stride=1, padding=1, count_include_pad=False)
            elif step == "maximum":
                x_BCHW = F.max_pool2d(x_BCHW, 3, stride=1, padding=1)
            elif step == "shrink":
                x_BCHW = F.max_pool2d(x_BCHW, 3, stride=2)
            elif isinstance(step[0], tuple):
                x_BCHW = torch.cat([self.get_submodule(fork[0])(x_BCHW) for fork in step], dim=1)
            else:
                x_BCHW = self.get_submodule(step[0])(x_BCHW)
        return x_BCHW


def _small(pooled: int) -> list[Branch]:
    """35 x 35 places."""
    double = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
    five = [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)]
    return [[("branch1x1", 64, 1)], five, double, ["average", ("branch_pool", pooled, 1)]]


def _long(inner: int) -> list[Branch]:
    """17 x 17 places, kernels of 7 x 1 and 1 x 7."""
    seven = [("branch7x7_1", inner, 1), ("branch7x7_2", inner, (1, 7)), ("branch7x7_3", 192, (7, 1))]
    sizes = [(inner, 1), (inner, (7, 1)), (inner, (1, 7)), (inner, (7, 1)), (192, (1, 7))]
    double = [(f"branch7x7dbl_{number}", *size) for number, size in enumerate(sizes, start=1)]
    return [[("branch1x1", 192, 1)], seven, double, ["average", ("branch_pool", 192, 1)]]


def _wide(pool: Pool) -> list[Branch]:
    """8 x 8 places."""
    three = [("branch3x3_1", 384, 1), (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1)))]
    double = [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3)]
    double += [(("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1)))]
    return [[("branch1x1", 320, 1)], three, double, [pool, ("branch_pool", 192, 1)]]


SHRINK_TO_17: list[Branch] = [
    [("branch3x3", 384, 3, 2)],
    [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)],
    ["shrink"],
]
SHRINK_TO_8: list[Branch] = [
    [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)],
    [
        ("branch7x7x3_1", 192, 1),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, 3, 2),
    ],
    ["shrink"],
]


class Inception(nn.Module):
    """Images (B,3,299,299), values 0 to 255, to 2,048 pooled features (B,2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, padding=0)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, padding=0)
        blocks: dict[str, list[Branch]] = {"5b": _small(32), "5c": _small(64), "5d": _small(64), "6a": SHRINK_TO_17}
        blocks |= {"6b": _long(128), "6c": _long(160), "6d": _long(160), "6e": _long(192), "7a": SHRINK_TO_8}
        blocks |= {"7b": _wide("average"), "7c": _wide("maximum")}
        channels, self._blocks = 192, [f"Mixed_{name}" for name in blocks]
        for name, branches in blocks.items():
            block = Mixed(channels, *branches)
            self.add_module(f"Mixed_{name}", block)
            channels = block.channels

    def forward(self, images_BCHW: Tensor) -> Tensor:
        x_BCHW = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3((images_BCHW - 128) / 128)))
        x_BCHW = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x_BCHW, 3, 2)))
        x_BCHW = F.max_pool2d(x_BCHW, 3, 2)
        for name in self._blocks:
            x_BCHW = self.get_submodule(name)(x_BCHW)
        return x_BCHW.mean(dim=(2, 3))


def load_inception(weights: str | Path) -> tuple[Inception, str]:
    """The network in eval mode, and the first eight digits of the SHA-256 of its weights.

    Raises:
        ValueError: the file holds anything but tensors, or not those of this network.
    """
    try:
        found = torch.load(weights, weights_only=True, map_location="cpu")
        tensors = {
            name: each for name, each in found.items() if isinstance(each, Tensor) and not name.startswith("fc.")
        }
    except Exception as error:
        raise ValueError(f"{weights} does not hold Inception weights: a file of plain tensors is needed.") from error
    network = Inception()
    counts = "num_batches_tracked"  # which the published file lacks
    expected = {name for name in network.state_dict() if not name.endswith(counts)}
    given = {name for name in tensors if not name.endswith(counts)}
    if expected != given:
        first = sorted(expected ^ given)[0]
        raise ValueError(
            f"{weights} does not hold Inception weights: {first} is {'missing' if first in expected else 'unknown'}."
        )
    try:
        network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{weights} does not hold Inception weights: {' '.join(str(error).split())[:200]}") from error
    with Path(weights).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:8]
    return network.eval().requires_grad_(False), digest


def resize_like_tensorflow1(images_BCHW: Tensor) -> Tensor:
    """Bilinear to 299 x 299 without antialiasing, with the corners that TensorFlow 1 had: place i is read from i H / 299."""
    for axis in (2, 3):
        length = images_BCHW.shape[axis]
        places = torch.arange(SIDE, device=images_BCHW.device, dtype=torch.float32) * (length / SIDE)
        lower = places.floor().long()
        upper = (lower + 1).clamp(max=length - 1)
        share = (places - lower).view((-1, 1) if axis == 2 else (-1,))
        low, high = images_BCHW.index_select(axis, lower), images_BCHW.index_select(axis, upper)
        images_BCHW = low + (high - low) * share
    return images_BCHW


def resize_like_pillow(images_BCHW: Tensor) -> Tensor:
    """Antialiased bicubic to 299 x 299 in floating point, as clean-fid resizes with Pillow."""
    return F.interpolate(images_BCHW, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255)
