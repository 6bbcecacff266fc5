"""Which sub-codebook a patch chooses its pixel code from: SemHiTok's rule and the controls it is measured against.

All rules spend the same bits on a patch, log2(K) + log2(m): the choice follows from what encoder and decoder both know,
the semantic code k and the patch's place n in the sequence. The decoder sees [semantic code ; pixel code] in every case.

* ``BySemanticCode`` (the paper): K sub-codebooks of m codes, chosen by meaning.
* ``OneForAll``: a single codebook of m codes. This is Figure 2's pair of independent codebooks, semantic K and pixel m,
  joined along the dimension into a product vocabulary of K * m ids. Joined along the length (``concat`` length) the same
  two codes are two tokens: vocabulary K + m, twice the sequence for decoder and language model, the same bits. A pixel
  codebook of K * (m - 1) codes makes the *vocabulary* of that variant as large as SemHiTok's, but at
  log2(K) + log2(K * (m - 1)) bits and two tokens a patch: a comparison at more bits, to be labelled so.
* ``ByShiftedCode``: K sub-codebooks of m codes, chosen without meaning: (k + shift(n)) mod K with a fixed shift for
  every place. It has as many parameters and sub-codebooks in use as the paper's rule, but each pools the patches of as
  many unrelated semantic codes as there are places. Two limits, to be said with its results: groups are more even in
  size than semantic codes, which is in its favour; and pixel codes depend on the place, so that ids have no table of
  embeddings. A place alone (no k) would use only as many sub-codebooks as there are places; a permutation of k alone
  would be the paper's rule under other names.

Shapes: N tokens, K semantic codes, m pixel codes in a sub-codebook.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

PixelCodebookKind = Literal["semantic", "shared", "random"]

# Multiplicative hashing by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4): places get far-apart shifts.
GOLDEN_32 = 2_654_435_769


class Grouping(Protocol):
    """A rule: semantic ids (...,N), the last axis in the order of the sequence -> sub-codebooks in [0,groups)."""

    @property
    def groups(self) -> int:
        """Number of sub-codebooks."""
        ...

    def __call__(self, semantic_ids: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class BySemanticCode:
    """Sub-codebook k for semantic code k."""

    semantic_codes: int

    @property
    def groups(self) -> int:
        return self.semantic_codes

    def __call__(self, semantic_ids: Tensor) -> Tensor:
        return semantic_ids


@dataclass(frozen=True)
class OneForAll:
    """The same codebook for all patches."""

    @property
    def groups(self) -> int:
        return 1

    def __call__(self, semantic_ids: Tensor) -> Tensor:
        return torch.zeros_like(semantic_ids)


@dataclass(frozen=True)
class ByShiftedCode:
    """Sub-codebook (k + shift(n)) mod K."""

    semantic_codes: int

    @property
    def groups(self) -> int:
        return self.semantic_codes

    def __call__(self, semantic_ids: Tensor) -> Tensor:
        place_N = torch.arange(semantic_ids.shape[-1], device=semantic_ids.device)
        hashed_N = (place_N * GOLDEN_32) & 0xFFFFFFFF
        return (semantic_ids + ((hashed_N * self.semantic_codes) >> 32)) % self.semantic_codes


def grouping_of(kind: PixelCodebookKind, semantic_codes: int) -> Grouping:
    """The rule by its name in the configuration."""
    match kind:
        case "semantic":
            return BySemanticCode(semantic_codes)
        case "shared":
            return OneForAll()
        case "random":
            return ByShiftedCode(semantic_codes)
