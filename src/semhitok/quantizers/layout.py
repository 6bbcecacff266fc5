"""Joint ids of semantic and pixel codes: the m_k ids of semantic code k follow those of k - 1.

With m_k = m for all k this is the paper's k * m + j (section 3.2); different sizes use cumulative offsets instead.

Shapes: K semantic codes, m_k pixel codes under code k, m the largest of them, V = sum of the m_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class IdLayout:
    """The number of pixel codes of each semantic code, which defines the joint ids.

    Attributes:
        sizes: m_k for every semantic code k, each at least 1.
    """

    sizes: tuple[int, ...]

    @classmethod
    def of(cls, semantic_codes: int, sizes: int | Sequence[int]) -> IdLayout:
        """The layout for one size shared by all semantic codes, or for one size per semantic code.

        Raises:
            ValueError: the number of sizes differs from the number of semantic codes, or a size is below 1.
        """
        listed = (sizes,) * semantic_codes if isinstance(sizes, int) else tuple(sizes)
        if len(listed) != semantic_codes:
            raise ValueError(f"{len(listed)} sub-codebook sizes do not match {semantic_codes} semantic codes")
        if min(listed) < 1:
            raise ValueError(f"every semantic code needs at least 1 pixel code, got {min(listed)}")
        return cls(listed)

    @cached_property
    def vocab_size(self) -> int:
        """V."""
        return sum(self.sizes)

    @cached_property
    def largest(self) -> int:
        """m."""
        return max(self.sizes)

    @cached_property
    def is_uniform(self) -> bool:
        """Whether all semantic codes have the same number of pixel codes."""
        return min(self.sizes) == self.largest

    # The tensors are on the CPU, even if the model is built on the meta device, and are moved where they are used.

    @cached_property
    def size_of(self) -> Tensor:
        """(K,) int64: m_k."""
        return torch.tensor(self.sizes, device="cpu")

    @cached_property
    def offset_of(self) -> Tensor:
        """(K,) int64: first joint id of each semantic code."""
        return self.size_of.cumsum(0) - self.size_of

    @cached_property
    def exists(self) -> Tensor:
        """(K,m) bool: j < m_k."""
        return torch.arange(self.largest, device="cpu") < self.size_of[:, None]

    @cached_property
    def _owner_of(self) -> Tensor:
        return torch.arange(len(self.sizes), device="cpu").repeat_interleave(self.size_of)

    def flatten(self, semantic_ids: Tensor, pixel_ids: Tensor) -> Tensor:
        """Joint ids in [0,V) of semantic ids k and inner ids j of equal shape. Ranges are not checked."""
        if self.is_uniform:
            return semantic_ids * self.largest + pixel_ids
        return self.offset_of.to(semantic_ids.device)[semantic_ids] + pixel_ids

    def split(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Semantic ids k and inner ids j of joint ids of any shape. Ranges are not checked."""
        if self.is_uniform:
            return ids // self.largest, ids % self.largest
        semantic_ids = self._owner_of.to(ids.device)[ids]
        return semantic_ids, ids - self.offset_of.to(ids.device)[semantic_ids]

    def table(self, values_V: Tensor) -> Tensor:
        """One value per joint id (V,) as a table (K,m), 0 for missing pixel codes."""
        table_Km = values_V.new_zeros(len(self.sizes), self.largest)
        table_Km[self.exists.to(values_V.device)] = values_V
        return table_Km
