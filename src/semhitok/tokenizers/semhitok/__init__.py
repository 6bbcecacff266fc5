"""SemHiTok (arXiv 2503.06764): configuration and model."""

from semhitok.tokenizers.registry import TokenizerKind
from semhitok.tokenizers.semhitok.configuration import SemHiTokConfig
from semhitok.tokenizers.semhitok.modeling import SemHiTokModel
from semhitok.types import STAGES

# ``joint`` is the control that trains the first two stages jointly.
TOKENIZER = TokenizerKind(SemHiTokConfig, SemHiTokModel, stages=("joint", *STAGES))

__all__ = ["TOKENIZER", "SemHiTokConfig", "SemHiTokModel"]
