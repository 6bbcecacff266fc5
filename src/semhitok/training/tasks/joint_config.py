"""Configuration of the joint training of both branches."""

from __future__ import annotations

from dataclasses import dataclass, field

from semhitok.training.tasks.pixel_config import PixelConfig
from semhitok.training.tasks.semantic_config import SemanticConfig


@dataclass(frozen=True)
class JointConfig:
    """Losses and optimizers of joint training.

    Attributes:
        semantic, pixel: losses, optimizers and codebook maintenance of the two branches; each has its own optimizer.
        pixel_gradient: the pixel losses also reach the semantic projection. Without it the two losses share no
            parameters, and joint training differs from the stages only in that the semantic codebook still moves.
    """

    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    pixel: PixelConfig = field(default_factory=PixelConfig)
    pixel_gradient: bool = True
