"""The pass for one generated token, compiled: a cache of fixed length, so that no shape changes from token to token.

On a GPU the pass is recorded as a CUDA graph and replayed, which saves the launches of some ten kernels per layer, the larger part of the time
of a token in small batches. Attention meets the whole length of the cache, under a mask.

Shapes: R rows of the pass, L positions of the prompts, M positions of the cache, D channels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import StaticCache

LENGTH_STEP = 128
"""Caches are multiples of this, so that prompts of similar length share one."""


class CompiledSteps:
    """For ``generate_images(..., compiled=CompiledSteps(model))``; keep it, as it holds what was compiled and its caches.

    The first image for each number of rows and each ``LENGTH_STEP`` of length takes as long as compiling takes. Tokens may differ from the
    uncompiled ones where two are as likely but for rounding.

    Args:
        model: a ``SemHiTokForConditionalGeneration``.
        backend: see ``torch.compile``.
    """

    def __init__(self, model: Any, *, backend: str | Callable[..., Any] = "inductor") -> None:
        self.model = model
        mode = "reduce-overhead" if backend == "inductor" and model.device.type == "cuda" else None
        self._pass = torch.compile(_one_token, backend=backend, dynamic=False, mode=mode)
        self._free: defaultdict[tuple[int, int], list[StaticCache]] = defaultdict(list)

    @contextmanager
    def cache(self, rows: int, length: int) -> Iterator[tuple[StaticCache, int]]:
        """An empty cache for at least ``length`` positions, and M; others get another one meanwhile."""
        size = -(-length // LENGTH_STEP) * LENGTH_STEP
        free = self._free[rows, size]
        found = free.pop() if free else StaticCache(self.model.language_model.config, max_cache_len=size)
        found.reset()
        try:
            yield found, size
        finally:
            free.append(found)

    def advance(self, embeds_R1D: Tensor, mask_RM: Tensor, places_R1: Tensor, cache: StaticCache) -> Tensor:
        """Hidden states (R,1,D) of one more token."""
        torch.compiler.cudagraph_mark_step_begin()
        # A replayed graph writes its result into the same memory each time.
        return self._pass(self.model, embeds_R1D, mask_RM, places_R1, cache).clone()


def _one_token(model: Any, embeds_R1D: Tensor, mask_RM: Tensor, places_R1: Tensor, cache: StaticCache) -> Tensor:
    options = {"attention_mask": mask_RM, "position_ids": places_R1, "past_key_values": cache, "use_cache": True}
    return model.body(inputs_embeds=embeds_R1D, **options).last_hidden_state
