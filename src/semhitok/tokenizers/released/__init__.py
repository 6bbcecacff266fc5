"""Released VQ tokenizers (LlamaGen's as in Janus, Chameleon's, Emu3's) as adapters over the classes of transformers."""

from semhitok.tokenizers.registry import TokenizerKind
from semhitok.tokenizers.released.configuration import ReleasedTokenizerConfig
from semhitok.tokenizers.released.modeling import ReleasedTokenizerModel

TOKENIZER = TokenizerKind(ReleasedTokenizerConfig, ReleasedTokenizerModel, stages=("released",))

__all__ = ["TOKENIZER", "ReleasedTokenizerConfig", "ReleasedTokenizerModel"]
