"""What depends on the precision a caller chooses: ids of images, and choices of a sampler.

    python -m benchmarks.precision

Ids: the share of those of the bundled ``nano`` on the example scenes and photographs that change under autocast, with the weights loaded
in bf16, inside the bundled language model loaded in bf16, and in a loaded model that is cast. Sampling: how many choices among
8,192 ids change when logits change by relative errors of 2e-6, with Gumbel numbers and by inverting the cumulative distribution.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semhitok import SemHiTokForConditionalGeneration, SemHiTokModel, TokenizerImageProcessor
from semhitok.data.folder import image_files

EXAMPLES = [Path("examples/scenes"), Path("examples/photographs")]
IDS, ROUNDING = 8192, 2e-6


def changed_ids() -> dict[str, float]:
    """The share of ids that differ from those in fp32, by what the caller does."""
    model: Any = SemHiTokModel.from_pretrained("nano").eval()
    pixels = TokenizerImageProcessor(size=model.config.image_size)(image_files(EXAMPLES))["pixel_values"]
    exact = model.encode(pixels).ids
    inside = SemHiTokForConditionalGeneration.from_pretrained("mllm_nano", dtype=torch.bfloat16).image_tokenizer
    loaded: Any = SemHiTokModel.from_pretrained("nano", dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = model.encode(pixels).ids
    found = {
        "autocast": under_autocast,
        "loaded in bf16": loaded.encode(pixels.to(loaded.dtype)).ids,
        "in mllm_nano, loaded in bf16": inside.encode(pixels.to(inside.dtype)).ids,
        "cast after loading": SemHiTokModel.from_pretrained("nano").to(torch.bfloat16).encode(pixels).ids,
    }
    return {name: (ids != exact).float().mean().item() for name, ids in found.items()}


def changed_choices(rounds: int) -> dict[str, int]:
    """How many of 20 choices in each round differ, by the way of sampling."""
    from semhitok.mllm import Sampling

    generator, sampling = torch.Generator().manual_seed(0), Sampling()
    logits = torch.randn(20, IDS, generator=generator)
    rounded = logits * (1 + ROUNDING * torch.rand(logits.shape, generator=generator))
    draws = torch.rand(rounds, 20, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def inverse(logits: Tensor, index: int) -> Tensor:
        borders = logits.softmax(dim=-1).double().cumsum(dim=-1)
        return torch.searchsorted(borders, draws[index] * borders[:, -1:], right=True)[:, 0]

    def differing(choose: Callable[[Tensor, int], Tensor]) -> int:
        return sum(int((choose(logits, index) != choose(rounded, index)).sum()) for index in range(rounds))

    return {"Gumbel numbers": differing(sampling.choose), "inverse of the cumulative distribution": differing(inverse)}


def main() -> None:
    """Print both, and the time that the numbers for one position take."""
    from semhitok.mllm import Sampling

    for name, share in changed_ids().items():
        print(f"ids that change, {name}: {share:.2%}")
    for name, count in changed_choices(2000).items():
        print(f"choices of 40,000 that change, {name}: {count}")
    began = time.perf_counter()
    for position in range(200):
        Sampling().noise(1, position, IDS)
    print(f"Gumbel numbers of one position of {IDS:,} ids: {(time.perf_counter() - began) / 200 * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
