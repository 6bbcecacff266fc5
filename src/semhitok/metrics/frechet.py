"""Fréchet distance between two sets of images, on the features of a frozen network.

d² = |mean₁ - mean₂|² + tr(cov₁ + cov₂ - 2 (cov₁ cov₂)^½)   (Heusel et al., 2017, arXiv 1706.08500)

The distance depends on the network, on the resizing of its input and on the number of images: only figures of the same
protocol are comparable, so every extractor carries its name and protocol. "rFID" is reserved for the Inception network that
published figures use; with any other network the figure is named after that network. The reference set is always the cropped and
resized images that the tokenizer was given.

Shapes: N images, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semhitok.metrics.inception import load_inception, resize_like_pillow, resize_like_tensorflow1
from semhitok.teachers import EfficientNetLiteConfig, convert_efficientnet_lite

MINIMUM_IMAGES = 100
"""Reports omit the distance below this number: with so few images it is mostly sampling error."""


class FeatureStatistics:
    """Mean and covariance of feature vectors, accumulated in fp64 batch by batch (Chan's parallel update)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean_D = torch.zeros((), dtype=torch.float64)
        self._scatter_DD = torch.zeros((), dtype=torch.float64)

    def update(self, features_ND: Tensor) -> None:
        """Add a batch of feature vectors, (N,D); it may be empty."""
        count = len(features_ND)
        if count == 0:
            return
        features_ND = features_ND.detach().double().cpu()
        mean_D = features_ND.mean(dim=0)
        centred_ND = features_ND - mean_D
        total = self.count + count
        step_D = mean_D - self.mean_D
        scatter_DD = centred_ND.T @ centred_ND
        self._scatter_DD = self._scatter_DD + scatter_DD + step_D.outer(step_D) * (self.count * count / total)
        self.mean_D = self.mean_D + step_D * (count / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance, (D,D) fp64.

        Raises:
            ValueError: fewer than two vectors have been added.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images, but only {self.count} were given.")
        return self._scatter_DD / (self.count - 1)


def frechet_distance(mean1_D: Tensor, covariance1_DD: Tensor, mean2_D: Tensor, covariance2_DD: Tensor) -> float:
    """Fréchet distance (squared, as FID is) between two Gaussians, in fp64.

    With cov = A Aᵀ, the trace of (cov₁ cov₂)^½ is the sum of the singular values of A₁ᵀ A₂. No square root is taken of
    a number near zero, so the figure stays exact for singular covariances (fewer images than features), where roots of
    eigenvalues of cov₁ cov₂ turn rounding errors of 1e-16 into 1e-8 each.
    """
    factor1, factor2 = _factor(covariance1_DD.double()), _factor(covariance2_DD.double())
    trace_of_root = torch.linalg.svdvals(factor1.T @ factor2).sum()
    shift = (mean1_D.double() - mean2_D.double()).square().sum()
    return float(shift + factor1.square().sum() + factor2.square().sum() - 2 * trace_of_root)


def _factor(covariance_DD: Tensor) -> Tensor:
    """A with A Aᵀ = covariance, (D, rank)."""
    values_D, vectors_DD = torch.linalg.eigh(covariance_DD)
    kept = values_D > values_D.max() * len(values_D) * torch.finfo(torch.float64).eps
    return vectors_DD[:, kept] * values_D[kept].sqrt()


@dataclass(frozen=True)
class FeatureExtractor:
    """A frozen network whose features are compared.

    Attributes:
        name: what the distance is called in a report.
        protocol: network, layer and resizing, printed with every figure.
        extract: images (B,3,H,W) in [-1,1] -> features (B,D).
    """

    name: str
    protocol: str
    extract: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FrechetScore:
    """A distance with what makes it comparable: the extractor's name and protocol, and the number of images."""

    name: str
    protocol: str
    images: int
    distance: float


class FrechetMetric:
    """Fréchet distance between originals and reconstructions, streamed."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.extractor = extractor
        self.originals = FeatureStatistics()
        self.reconstructions = FeatureStatistics()

    def update(self, originals_BCHW: Tensor, reconstructions_BCHW: Tensor) -> None:
        """Add a batch of originals and their reconstructions, both in [-1,1]."""
        self.originals.update(self.extractor.extract(originals_BCHW))
        self.reconstructions.update(self.extractor.extract(reconstructions_BCHW))

    def result(self) -> FrechetScore:
        """The distance so far; ValueError with fewer than two images."""
        one, two = self.originals, self.reconstructions
        distance = frechet_distance(one.mean_D, one.covariance, two.mean_D, two.covariance)
        return FrechetScore(self.extractor.name, self.extractor.protocol, one.count, distance)


def efficientnet_lite2_features(
    weights: str | Path, *, image_size: int = 128, device: torch.device | str = "cpu"
) -> FeatureExtractor:
    """Pooled features of EfficientNet-Lite2 (Tan and Le, 2019; ImageNet), which no training here ever sees.

    Args:
        weights: the ``.pth`` at ``weights_path("efficientnet_lite2.pth")``, from ``semhitok data fetch weights``.
        image_size: side in pixels to which images are resampled (bicubic, antialiased). The default suits CPUs and
            cannot see detail finer than that of a 128 px image; it is part of the protocol.
        device: where the network runs.
    """
    network = convert_efficientnet_lite(weights, EfficientNetLiteConfig.lite2()).requires_grad_(False)
    nn.Module.to(network, device)

    def extract(images_BCHW: Tensor) -> Tensor:
        images_BCHW = images_BCHW.to(device, torch.float32).clamp(-1, 1)
        resized_BCHW = F.interpolate(images_BCHW, (image_size, image_size), mode="bicubic", antialias=True)
        # The network was trained on (x - 127) / 128 for x in [0,255].
        return network((127.5 * resized_BCHW + 0.5) / 128).pooler_output

    protocol = f"EfficientNet-Lite2, 1280 pooled features, images resampled to {image_size} px (bicubic, antialiased)"
    return FeatureExtractor("Fréchet distance (EfficientNet-Lite2)", protocol, extract)


Protocol = Literal["torch-fidelity", "adm", "clean-fid"]
PROTOCOLS: Mapping[Protocol, tuple[str, str]] = {
    "torch-fidelity": ("rFID", "bilinear as in TensorFlow 1"),
    "adm": ("rFID (ADM)", "bilinear as in TensorFlow 1"),
    "clean-fid": ("rFID (clean-fid)", "bicubic, antialiased, in floating point"),
}
"""What the distance is called, and how images are resized for the network."""


def inception_features(
    weights: str | Path, *, protocol: Protocol = "torch-fidelity", device: torch.device | str = "cpu"
) -> FeatureExtractor:
    """Pooled features of the Inception network that published rFID figures use. Images are rounded to 8 bits, as if saved as PNG.

    Args:
        weights: the file that torch-fidelity publishes, ``weights-inception-2015-12-05-6726825d.pth``.
        protocol: ``torch-fidelity`` and ``adm`` resize as TensorFlow 1 did (they differ in how images were cropped before:
            ``evaluation.tokenizer.rfid``); ``clean-fid`` resizes with antialiasing (Parmar et al., 2022, arXiv 2104.11222).
        device: where the network runs.

    Raises:
        ValueError: the file of weights is missing, or holds anything but the tensors of this network.
    """
    if not Path(weights).is_file():
        raise ValueError(f"rFID needs the Inception weights of torch-fidelity, but there is no file {weights}.")
    network, digest = load_inception(weights)
    network = network.to(device)
    resize = resize_like_pillow if protocol == "clean-fid" else resize_like_tensorflow1

    def extract(images_BCHW: Tensor) -> Tensor:
        eight_bit_BCHW = ((images_BCHW.to(device).float() + 1) * 127.5).round().clamp(0, 255)
        return network(resize(eight_bit_BCHW))

    name, resizing = PROTOCOLS[protocol]
    return FeatureExtractor(
        name,
        f"{protocol} protocol: Inception of 2015-12-05 (weights {digest}), 2048 pooled features, 8-bit images resized to 299 px "
        f"({resizing}), reference = the same cropped images",
        extract,
    )
