"""Rules that assign a sub-codebook to a patch: SemHiTok's rule and the controls that it is compared with.

All rules spend the same number of bits on a patch, log2(K) + log2(m), because they depend only on what encoder and decoder
both know: the semantic code k and the patch's position n. The decoder always sees [semantic code ; pixel code].

* ``BySemanticCode`` (the paper): K sub-codebooks of m codes, chosen by the semantic code.
* ``OneForAll``: a single codebook of m codes. This is Figure 2's pair of independent codebooks, semantic K and pixel m,
  joined along the dimension into a product vocabulary of K * m ids. Joined along the length (``concat`` length), the same
  two codes are two tokens: a vocabulary of K + m, twice the sequence length for decoder and language model, the same bits.
  A pixel codebook of K * (m - 1) codes makes the *vocabulary* of that variant as large as SemHiTok's, but takes
  log2(K) + log2(K * (m - 1)) bits and two tokens per patch, which must be stated with any comparison.
* ``ByShiftedCode``: K sub-codebooks of m codes, chosen independently of meaning: (k + shift(n)) mod K with a fixed shift
  for every position. It uses as many parameters and sub-codebooks as the paper's rule, but each pools the patches of as
  many unrelated semantic codes as there are positions. Two caveats: groups are more even in size than semantic codes,
  which favours this control; and pixel codes depend on the position, so ids have no embedding table. The position alone
  would use only as many sub-codebooks as there are positions; a permutation of k would be the paper's rule renamed.

Shapes: N tokens, K semantic codes, m pixel codes in a sub-codebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

PixelCodebookKind = Literal["semantic", "shared", "random", "grouped"]

# Multiplicative hashing by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4) spreads the shifts.
GOLDEN_32 = 2_654_435_769


class Grouping(Protocol):
    """Maps semantic ids (...,N), with the last axis in sequence order, to sub-codebooks in [0,groups)."""

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


@dataclass(frozen=True)
class BySemanticGroup:
    """The sub-codebook of the group to which semantic code k belongs.

    Attributes:
        group_of: the group of each semantic code, numbered from 0 without gaps.
    """

    group_of: tuple[int, ...]

    @property
    def groups(self) -> int:
        return max(self.group_of) + 1

    def __call__(self, semantic_ids: Tensor) -> Tensor:
        return torch.tensor(self.group_of, device=semantic_ids.device)[semantic_ids]


def grouping_of(kind: PixelCodebookKind, semantic_codes: int, group_of: Sequence[int] | None = None) -> Grouping:
    """The rule of that name in the configuration; ``group_of`` lists the groups of ``grouped``."""
    match kind:
        case "semantic":
            return BySemanticCode(semantic_codes)
        case "shared":
            return OneForAll()
        case "random":
            return ByShiftedCode(semantic_codes)
        case "grouped":
            assert group_of is not None, "the configuration checks that grouped codes have their groups"
            return BySemanticGroup(tuple(group_of))
