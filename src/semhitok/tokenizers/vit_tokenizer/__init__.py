"""A ViT tokenizer with a quantizer of choice, as which the systems of the comparison are built (docs/comparison.md)."""

from semhitok.tokenizers.registry import TokenizerKind
from semhitok.tokenizers.vit_tokenizer.configuration import ViTTokenizerConfig
from semhitok.tokenizers.vit_tokenizer.modeling import ViTTokenizerModel, ViTTokenizerOutput
from semhitok.types import VIT_STAGES

TOKENIZER = TokenizerKind(ViTTokenizerConfig, ViTTokenizerModel, stages=VIT_STAGES)

__all__ = ["TOKENIZER", "ViTTokenizerConfig", "ViTTokenizerModel", "ViTTokenizerOutput"]
