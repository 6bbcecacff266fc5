"""The network of the perceptual loss."""

from __future__ import annotations

from torch import nn

from semhitok.losses import VGGPerceptual
from semhitok.recipes.recipe import PerceptualDepth, PerceptualKind
from semhitok.storage.cache import require_weights, weights_path


def load_perceptual(kind: PerceptualKind, depth: PerceptualDepth) -> nn.Module:
    """The VGG16 of the perceptual loss, up to a layer.

    Raises:
        ValueError: the weights are missing; the message says how to get them.
    """
    if kind == "lpips":
        backbone, heads = weights_path("vgg16-397923af.pth"), weights_path("lpips_vgg.pth")
        return VGGPerceptual.from_lpips(backbone, heads, deepest_layer=depth)
    path = require_weights(
        weights_path("vgg16_hed.h5"), "the perceptual loss needs VGG16 weights", ", or set perceptual_weight to 0"
    )
    return VGGPerceptual.from_hed(path, deepest_layer=depth, pooling="average")
