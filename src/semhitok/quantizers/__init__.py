"""Quantizers: features to codes and ids. One file per idea; all return ``semhitok.types.Quantized``.

``base`` defines the protocol. ``ema`` is the semantic codebook, ``flat`` has vanilla and normalised codebooks; ``hierarchical`` is
SGHC, with its joint ids in ``layout``, its controls in ``grouping`` and the choice of sizes in ``allotment``; ``multi_codebook``
(UniTok) and ``residual`` have several codes per token. They are built from ``lookup``, ``kmeans``, ``grouped`` and
``dead_codes``; ``usage`` measures them.

A new quantizer is one file that defines a ``base.TokenQuantizer``, and a line in one of the tables below, whose keys are the
names used in tokenizer configurations.
"""

from collections.abc import Callable
from dataclasses import dataclass

from semhitok.quantizers.base import Quantizer, TokenQuantizer
from semhitok.quantizers.ema import EMAQuantizer, UpdateRule
from semhitok.quantizers.flat import NormalizedQuantizer, VanillaQuantizer
from semhitok.quantizers.hierarchical import HierarchicalQuantizer
from semhitok.quantizers.kmeans import Assignments
from semhitok.quantizers.lookup import nearest_code, nearest_cosine
from semhitok.quantizers.multi_codebook import MultiCodebookQuantizer
from semhitok.quantizers.residual import ResidualQuantizer
from semhitok.quantizers.usage import CodeUsage, underused_subcodebooks

__all__ = [
    "ONE_CODE_PER_TOKEN",
    "SEVERAL_CODES_PER_TOKEN",
    "Assignments",
    "CodeUsage",
    "EMAQuantizer",
    "HierarchicalQuantizer",
    "MultiCodebookQuantizer",
    "NormalizedQuantizer",
    "Quantizer",
    "QuantizerSettings",
    "ResidualQuantizer",
    "TokenQuantizer",
    "VanillaQuantizer",
    "build_quantizer",
    "nearest_code",
    "nearest_cosine",
    "underused_subcodebooks",
]


@dataclass(frozen=True)
class QuantizerSettings:
    """Settings of all quantizers that tokenizers can choose; each quantizer uses those it needs.

    Attributes:
        codebook_size: K, codes of one codebook.
        dim: D, channels of the features.
        codes_per_token: C.
        decay, update_rule: settings of the EMA codebook.
    """

    codebook_size: int
    dim: int
    codes_per_token: int = 1
    decay: float = 0.99
    update_rule: UpdateRule = "sum_count"


Build = Callable[[QuantizerSettings], TokenQuantizer]

ONE_CODE_PER_TOKEN: dict[str, Build] = {
    "ema": lambda s: EMAQuantizer(s.codebook_size, s.dim, decay=s.decay, update_rule=s.update_rule),
    "vanilla": lambda s: VanillaQuantizer(s.codebook_size, s.dim),
    "normalized": lambda s: NormalizedQuantizer(s.codebook_size, s.dim),
}
SEVERAL_CODES_PER_TOKEN: dict[str, Build] = {
    "multi_codebook": lambda s: MultiCodebookQuantizer(s.codes_per_token, s.codebook_size, s.dim),
    "residual": lambda s: ResidualQuantizer(s.codes_per_token, s.codebook_size, s.dim),
}


def build_quantizer(kind: str, settings: QuantizerSettings) -> TokenQuantizer:
    """Build the quantizer of that name.

    Raises:
        ValueError: the name is unknown, or several codes per token are requested from a quantizer that has one.
    """
    if kind in ONE_CODE_PER_TOKEN:
        if settings.codes_per_token != 1:
            raise ValueError(f"quantizer {kind} has one code per token, got {settings.codes_per_token}")
        return ONE_CODE_PER_TOKEN[kind](settings)
    if kind in SEVERAL_CODES_PER_TOKEN:
        return SEVERAL_CODES_PER_TOKEN[kind](settings)
    raise ValueError(f"quantizer must be one of {', '.join(ONE_CODE_PER_TOKEN | SEVERAL_CODES_PER_TOKEN)}, got {kind}")
