"""Building blocks of the tokenizers: transformer blocks, patches, rotary positions. No quantizer, no loss.

UniTok's blocks are in ``vitamin`` and ``attention_projection``.
"""

from semhitok.nn.patches import Patchify, PixelHead
from semhitok.nn.rotary import apply_rotary, axial_rotary
from semhitok.nn.transformer import Transformer

__all__ = ["Patchify", "PixelHead", "Transformer", "apply_rotary", "axial_rotary"]
