"""What the training loop can train: one file per task."""

from semhitok.training.tasks.joint import JointConfig, JointTask
from semhitok.training.tasks.pixel import PixelConfig, PixelTask
from semhitok.training.tasks.semantic import SemanticConfig, SemanticTask

__all__ = ["JointConfig", "JointTask", "PixelConfig", "PixelTask", "SemanticConfig", "SemanticTask"]
