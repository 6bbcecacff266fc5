"""Image tokenizers under one protocol."""

from typing import TYPE_CHECKING

from semhitok.lazy import lazy_names

if TYPE_CHECKING:
    from semhitok.tokenizers.image_processing import TokenizerImageProcessor
    from semhitok.tokenizers.protocol import ImageTokenizer
    from semhitok.tokenizers.semhitok.configuration import SemHiTokConfig
    from semhitok.tokenizers.semhitok.modeling import SemHiTokModel
    from semhitok.tokenizers.unitok.configuration import UniTokConfig
    from semhitok.tokenizers.unitok.modeling import UniTokModel
    from semhitok.tokenizers.unitok.processing import UniTokProcessor
    from semhitok.tokenizers.vit_tokenizer.configuration import ViTTokenizerConfig
    from semhitok.tokenizers.vit_tokenizer.modeling import ViTTokenizerModel
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "ImageTokenizer": "semhitok.tokenizers.protocol",
            "SemHiTokConfig": "semhitok.tokenizers.semhitok.configuration",
            "SemHiTokModel": "semhitok.tokenizers.semhitok.modeling",
            "TokenizerImageProcessor": "semhitok.tokenizers.image_processing",
            "UniTokConfig": "semhitok.tokenizers.unitok.configuration",
            "UniTokModel": "semhitok.tokenizers.unitok.modeling",
            "UniTokProcessor": "semhitok.tokenizers.unitok.processing",
            "ViTTokenizerConfig": "semhitok.tokenizers.vit_tokenizer.configuration",
            "ViTTokenizerModel": "semhitok.tokenizers.vit_tokenizer.modeling",
        },
    )

__all__ = [
    "ImageTokenizer",
    "SemHiTokConfig",
    "SemHiTokModel",
    "TokenizerImageProcessor",
    "UniTokConfig",
    "UniTokModel",
    "UniTokProcessor",
    "ViTTokenizerConfig",
    "ViTTokenizerModel",
]
