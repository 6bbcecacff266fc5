"""Keys and values of sequences of different lengths that come and go, each in a slot of its own.

A sequence's token at position p lies at place p of its slot, so slots are filled from the left and nothing is padded before a
sequence. The running sequences always occupy the first slots: a pass reads one slice of each table, without a copy.

Shapes: S slots, R rows of a pass, Q positions of each row in the pass, P places of a slot, H heads, D channels of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin

GROWTH = 64
"""Slots grow by whole multiples of this many places."""


class SlotCache(Cache):
    """A cache of transformers over slots; ``select`` says which slots and positions the next pass writes and reads.

    Args:
        layers: number of layers of the language model.
        slots: S, the most sequences at once.
        places: the most positions of a sequence.
    """

    def __init__(self, *, layers: int, slots: int, places: int) -> None:
        self.slots, self.most_places = slots, places
        self.places = 0
        self.first = 0
        self.positions_RQ = torch.zeros(0, 0, dtype=torch.long)
        self.length = 0
        super().__init__(layers=[_SlotLayer(self) for _ in range(layers)])

    def select(self, first: int, positions_RQ: Tensor, length: int) -> Tensor:
        """Choose what the next pass writes and reads.

        Args:
            first: slot of the first row; the others follow it.
            positions_RQ: of the tokens of each row.
            length: places that the pass reads: one more than the largest position.

        Returns:
            Which places each token may not look at, (R,1,Q,length).
        """
        assert first + len(positions_RQ) <= self.slots
        assert length <= self.most_places
        if length > self.places:
            self.places = min(self.most_places, -(-length // GROWTH) * GROWTH)
        self.first, self.positions_RQ, self.length = first, positions_RQ, length
        return (torch.arange(length, device=positions_RQ.device) > positions_RQ[..., None])[:, None]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` places of a slot to another one."""
        for layer in self.layers:
            assert isinstance(layer, _SlotLayer)
            for table in (layer.keys, layer.values):
                assert table is not None
                table[target, :, :length] = table[source, :, :length]


class _SlotLayer(CacheLayerMixin):
    """Keys and values (S,H,P,D) of one layer."""

    is_sliding = False

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (self._table(states, None) for states in (key_states, value_states))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write (R,H,Q,D) at the selected places and return what the pass reads, (R,H,length,D)."""
        cache = self.cache
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        if self.keys.shape[2] < cache.places:
            self.keys, self.values = self._table(key_states, self.keys), self._table(value_states, self.values)
        last = cache.first + len(cache.positions_RQ)
        slots_R1 = torch.arange(cache.first, last, device=key_states.device)[:, None]
        self.keys[slots_R1, :, cache.positions_RQ] = key_states.transpose(1, 2)
        self.values[slots_R1, :, cache.positions_RQ] = value_states.transpose(1, 2)
        return self.keys[cache.first : last, :, : cache.length], self.values[cache.first : last, :, : cache.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.length, 0

    def get_seq_length(self) -> int:
        return self.cache.length

    def get_max_length(self) -> int:
        return self.cache.most_places

    def _table(self, states: Tensor, old: Tensor | None) -> Tensor:
        """A table of the present number of places that begins with the old one."""
        # Zeros, as places that are masked are still multiplied: 0 times whatever was in memory may not be 0.
        table = states.new_zeros(self.cache.slots, states.shape[1], self.cache.places, states.shape[3])
        if old is not None:
            table[:, :, : old.shape[2]] = old
        return table


def check_full_attention(config: PreTrainedConfig) -> None:
    """Raise a ``ValueError`` for a language model whose layers do not all look at all earlier positions."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    window = None if getattr(config, "layer_types", None) else getattr(config, "sliding_window", None)
    if kinds or (window is not None and window < getattr(config, "max_position_embeddings", window)):
        found = ", ".join(sorted(kinds)) or f"a window of {window} positions"
        raise ValueError(
            f"sequences of different lengths can share passes only if all layers have full attention, but the language model "
            f"{config.model_type} has {found}"
        )
