"""Teachers: any transformers vision tower, or the built-in one, behind one interface."""

from semhitok.teachers.configuration import TeacherConfig
from semhitok.teachers.efficientnet import EfficientNetLiteConfig, EfficientNetLiteModel, convert_efficientnet_lite
from semhitok.teachers.tower import Teacher

__all__ = ["EfficientNetLiteConfig", "EfficientNetLiteModel", "Teacher", "TeacherConfig", "convert_efficientnet_lite"]
