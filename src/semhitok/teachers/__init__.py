"""Teachers: any transformers vision tower, or the built-in one, behind one interface; and a cache of what they say."""

from semhitok.teachers.cache import (
    ArrayCache,
    ArrayCacheWriter,
    CacheKey,
    digest_of_module,
    digest_of_text,
)
from semhitok.teachers.configuration import TeacherConfig
from semhitok.teachers.efficientnet import (
    EfficientNetLiteConfig,
    EfficientNetLiteModel,
    convert_efficientnet_lite,
)
from semhitok.teachers.tower import Teacher

__all__ = [
    "ArrayCache",
    "ArrayCacheWriter",
    "CacheKey",
    "EfficientNetLiteConfig",
    "EfficientNetLiteModel",
    "Teacher",
    "TeacherConfig",
    "convert_efficientnet_lite",
    "digest_of_module",
    "digest_of_text",
]
