"""What joint training of both branches optimises."""

from __future__ import annotations

from dataclasses import dataclass, field

from semhitok.training.tasks.pixel_config import PixelConfig
from semhitok.training.tasks.semantic_config import SemanticConfig


@dataclass(frozen=True)
class JointConfig:
    """What joint training optimises.

    Attributes:
        semantic, pixel: losses, optimizers and codebook maintenance of the two branches; each keeps an optimizer of its own.
        pixel_gradient: the pixel losses also reach the semantic projection. Without it the two losses share no
            parameter, and only the moving codebook is left of what sets joint training apart.
    """

    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    pixel: PixelConfig = field(default_factory=PixelConfig)
    pixel_gradient: bool = True
