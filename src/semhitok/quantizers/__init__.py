"""Quantizers: features to codes and ids. One file per idea; all return ``semhitok.types.Quantized``.

``ema`` the semantic codebook, ``flat`` vanilla and normalised codebooks, ``hierarchical`` SGHC with its joint ids in
``layout``, its controls in ``grouping`` and sizes for it in ``allotment``; ``multi_codebook`` (UniTok) and ``residual`` with
several codes per token; ``lookup``, ``kmeans``, ``grouped`` and ``revival`` are what they are made of, ``usage`` measures
them.
"""

from semhitok.quantizers.assignments import Assignments
from semhitok.quantizers.ema import EMAQuantizer
from semhitok.quantizers.flat import NormalizedQuantizer, VanillaQuantizer
from semhitok.quantizers.hierarchical import HierarchicalQuantizer
from semhitok.quantizers.lookup import nearest_code, nearest_cosine
from semhitok.quantizers.multi_codebook import MultiCodebookQuantizer
from semhitok.quantizers.residual import ResidualQuantizer
from semhitok.quantizers.usage import CodeUsage, underused_subcodebooks

__all__ = [
    "Assignments",
    "CodeUsage",
    "EMAQuantizer",
    "HierarchicalQuantizer",
    "MultiCodebookQuantizer",
    "NormalizedQuantizer",
    "ResidualQuantizer",
    "VanillaQuantizer",
    "nearest_code",
    "nearest_cosine",
    "underused_subcodebooks",
]
