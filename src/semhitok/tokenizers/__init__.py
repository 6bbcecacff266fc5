"""Image tokenizers under one protocol, registered with the Auto classes of transformers."""

from semhitok.tokenizers.image_processing import TokenizerImageProcessor
from semhitok.tokenizers.protocol import ImageTokenizer
from semhitok.tokenizers.registry import register_auto_classes
from semhitok.tokenizers.semhitok import SemHiTokConfig, SemHiTokModel
from semhitok.tokenizers.unitok import UniTokConfig, UniTokModel, UniTokProcessor

register_auto_classes()

__all__ = [
    "ImageTokenizer",
    "SemHiTokConfig",
    "SemHiTokModel",
    "TokenizerImageProcessor",
    "UniTokConfig",
    "UniTokModel",
    "UniTokProcessor",
]
