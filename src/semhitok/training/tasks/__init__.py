"""What the training loop can train: one file per task."""

from semhitok.training.tasks.pixel import PixelConfig, PixelTask
from semhitok.training.tasks.semantic import SemanticConfig, SemanticTask

__all__ = ["PixelConfig", "PixelTask", "SemanticConfig", "SemanticTask"]
