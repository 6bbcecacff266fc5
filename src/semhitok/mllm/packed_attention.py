"""Attention of packed rows sequence by sequence, in place of whole rows under a mask.

A mask keeps the sequences of a row apart, but saves nothing: every position still meets all R of its row, the mask itself is (B,R,R),
and kernels of the flash kind do not take one. Here sequences are taken out of their rows and attend causally on their own,
those of similar length together. Results differ from the masked ones by rounding only.

Shapes: B rows of R positions, M = B R, S sequences of a group, L positions of its longest, H heads, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from semhitok.transfer import to_device

NAME = "semhitok_packed_sequences"
CPU_SPREAD = 64
"""On a CPU the sequences of a group differ by less than this many positions."""


@dataclass(frozen=True)
class PackedSequences:
    """Where the sequences of packed rows are.

    On a GPU a group holds the sequences of more than half its longest one's length: every group costs launches. On a CPU, which
    has none, groups are finer (``CPU_SPREAD``).

    Attributes:
        groups: places in the flattened rows, (S,L) each; behind the end of a sequence its first place is repeated.
        back_M: the place of every position in the joined and flattened groups.
    """

    groups: tuple[Tensor, ...]
    back_M: Tensor

    @classmethod
    def of(cls, position_ids_BR: Tensor) -> PackedSequences:
        """From positions that count up within a sequence and restart with the next one. The host waits for them once."""
        positions = position_ids_BR.cpu().numpy()
        begins_here = np.ones(positions.shape, dtype=bool)
        begins_here[:, 1:] = np.diff(positions, axis=1) != 1
        begins = np.flatnonzero(begins_here)
        lengths = np.diff(begins, append=positions.size)
        kinds = _groups_of(lengths, position_ids_BR.device.type)
        groups, back, before = [], np.empty(positions.size, dtype=np.int64), 0
        for kind in np.unique(kinds):
            begins_S1, lengths_S1 = begins[kinds == kind, None], lengths[kinds == kind, None]
            offsets_L = np.arange(lengths_S1.max())
            inside_SL = offsets_L < lengths_S1
            places_SL = begins_S1 + offsets_L * inside_SL
            back[places_SL[inside_SL]] = before + np.flatnonzero(inside_SL)
            before += places_SL.size
            groups.append(to_device(torch.from_numpy(places_SL), position_ids_BR.device))
        return cls(tuple(groups), to_device(torch.from_numpy(back), position_ids_BR.device))


def _groups_of(lengths: np.ndarray, device_type: str) -> np.ndarray:
    """The group of each sequence, see ``PackedSequences``."""
    return np.ceil(lengths / CPU_SPREAD if device_type == "cpu" else np.log2(lengths)).astype(int)


def is_possible(language_model: PreTrainedModel) -> bool:
    """Whether all layers attend to everything before, and take their attention from transformers' table."""
    config = language_model.config
    kinds = getattr(config, "layer_types", None)
    window = any(kind != "full_attention" for kind in kinds) if kinds else getattr(config, "sliding_window", None)
    return bool(language_model._supports_attention_backend) and config._attn_implementation == "sdpa" and not window


@contextmanager
def by_sequence(language_model: PreTrainedModel) -> Iterator[None]:
    """Within it, forward passes must have ``packed_sequences``; backward passes that recompute layers belong in it, too."""
    config = language_model.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: nn.Module,
    query_BHRd: Tensor,
    key_BHRd: Tensor,
    value_BHRd: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_sequences: PackedSequences,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """See ``AttentionInterface``; without a mask, since transformers makes none for attention that it does not know."""
    flat_MHd = [each.transpose(1, 2).flatten(0, 1) for each in (query_BHRd, key_BHRd, value_BHRd)]
    attended, options = [], dict[str, Any](kwargs, is_causal=True)
    for places_SL in packed_sequences.groups:
        taken = (each.index_select(0, places_SL.flatten()).unflatten(0, places_SL.shape) for each in flat_MHd)
        query_SHLd, key_SHLd, value_SHLd = (each.transpose(1, 2) for each in taken)
        # Padding comes last, so that under causal attention no position of a sequence sees it.
        found_SLHd, _ = sdpa_attention_forward(module, query_SHLd, key_SHLd, value_SHLd, None, **options)
        attended.append(found_SLHd.flatten(0, 1))
    joined_MHd = torch.cat(attended).index_select(0, packed_sequences.back_M)
    return joined_MHd.unflatten(0, (query_BHRd.shape[0], query_BHRd.shape[2])), None


AttentionInterface.register(NAME, _attend)
