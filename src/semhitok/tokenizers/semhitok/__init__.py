"""SemHiTok (arXiv 2503.06764): configuration, model and image processor."""

from semhitok.tokenizers.semhitok.configuration import SemHiTokConfig
from semhitok.tokenizers.semhitok.image_processing import SemHiTokImageProcessor
from semhitok.tokenizers.semhitok.modeling import SemHiTokModel

__all__ = ["SemHiTokConfig", "SemHiTokImageProcessor", "SemHiTokModel"]
