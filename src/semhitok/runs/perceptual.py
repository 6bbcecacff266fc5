"""The network of the perceptual loss."""

from __future__ import annotations

from torch import nn

from semhitok.losses import VGGPerceptual
from semhitok.recipes.recipe import PerceptualDepth, PerceptualKind
from semhitok.storage.cache import weights_path


def load_perceptual(kind: PerceptualKind, depth: PerceptualDepth) -> nn.Module:
    """VGG16 up to a layer, as the perceptual loss has it.

    Raises:
        ValueError: its weights are missing; the message says how to get them.
    """
    if kind == "lpips":
        return VGGPerceptual.from_lpips(
            weights_path("vgg16-397923af.pth"), weights_path("lpips_vgg.pth"), deepest_layer=depth
        )
    path = weights_path("vgg16_hed.h5")
    if not path.exists():
        raise ValueError(
            f"the perceptual loss needs VGG16 weights at {path}: run `semhitok data fetch`, or set perceptual_weight to 0"
        )
    return VGGPerceptual.from_hed(path, deepest_layer=depth, pooling="average")
