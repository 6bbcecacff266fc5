"""UniTok (arXiv 2502.20321): configuration and model; ``processing`` joins images and texts, ``convert`` reads the release."""

from semhitok.tokenizers.unitok.configuration import UniTokConfig
from semhitok.tokenizers.unitok.modeling import UniTokModel, UniTokOutput

__all__ = ["UniTokConfig", "UniTokModel", "UniTokOutput"]
