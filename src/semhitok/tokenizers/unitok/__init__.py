"""UniTok (arXiv 2502.20321): configuration, model and processor of images and texts; ``convert`` reads the released checkpoint."""

from semhitok.tokenizers.registry import TokenizerKind
from semhitok.tokenizers.unitok.configuration import UniTokConfig
from semhitok.tokenizers.unitok.modeling import UniTokModel, UniTokOutput
from semhitok.tokenizers.unitok.processing import UniTokProcessor
from semhitok.types import UNITOK_STAGE

TOKENIZER = TokenizerKind(UniTokConfig, UniTokModel, stages=(UNITOK_STAGE,), processor_class=UniTokProcessor)

__all__ = ["TOKENIZER", "UniTokConfig", "UniTokModel", "UniTokOutput", "UniTokProcessor"]
