"""SemHiTok (arXiv 2503.06764): configuration and model."""

from semhitok.tokenizers.semhitok.configuration import SemHiTokConfig
from semhitok.tokenizers.semhitok.modeling import SemHiTokModel

__all__ = ["SemHiTokConfig", "SemHiTokModel"]
