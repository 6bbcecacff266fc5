"""How much faster are images generated with guidance in one pass per step than in the two passes of transformers?

    python -m benchmarks.guidance [--quick]

Left: ``generate_images(guidance=...)``, conditional and unconditional prompts in one batch, visual rows of the head only.
Right: the same model's ``generate(generation_mode="image", guidance_scale=...)``, the loop of transformers with a forward
pass for each and the whole head. Decoding is greedy; both sides must generate the same ids, or the benchmark fails.
"""

from __future__ import annotations

import torch
from benchmarks.language_models import MIDDLE, NANO, QUICK, random_prompts, rate_row, unified_model
from benchmarks.measuring import interleaved
from benchmarks.reporting import Aim, Report, Row, run_alone
from torch import Tensor

from semhitok.mllm import Sampling, SemHiTokForConditionalGeneration
from semhitok.recipes.language_recipe import SmallLanguageModel

GUIDANCE = 3.0
# Sizes of the language model, sides of the image in px (8 px a token), batches, rounds.
CASES = ((NANO, 64, (1, 4), 7), (MIDDLE, 128, (1, 4), 3))
QUICK_CASES = ((QUICK, 32, (1,), 3),)


def generate_fast(model: SemHiTokForConditionalGeneration, prompts: Tensor) -> Tensor:
    """One pass per step."""
    return model.generate_images(prompts, guidance=GUIDANCE, sampling=Sampling(temperature=0.0))


def generate_stock(model: SemHiTokForConditionalGeneration, prompts: Tensor) -> Tensor:
    """Two passes per step, by transformers."""
    return model.generate(prompts, generation_mode="image", guidance_scale=GUIDANCE)


def measure(quick: bool) -> Report:
    """Every size and batch in interleaved rounds."""
    rows = [row for case in (QUICK_CASES if quick else CASES) for row in _rows(*case, judged=not quick)]
    return Report(
        name="guidance",
        title="Generating images with guidance: one pass per step against two",
        method=f"Qwen2 layers with random weights, 2,000 text and 8,192 visual ids, fp32, prompts of 16 tokens, guidance "
        f"{GUIDANCE:g}, greedy; both sides generate the same ids.",
        rows=rows,
    )


def _rows(
    size: SmallLanguageModel, image_size: int, batches: tuple[int, ...], rounds: int, *, judged: bool
) -> list[Row]:
    model, rows = unified_model(size, image_size), []
    count = model.vocabulary.image_tokens
    for batch in batches:
        prompts = random_prompts(size, batch)
        fast, stock = generate_fast(model, prompts), generate_stock(model, prompts)
        if not torch.equal(fast, stock):
            raise RuntimeError(
                f"both loops must generate the same greedy ids, {int((fast != stock).sum())} of {fast.numel()} differ at width "
                f"{size.width}, batch {batch}"
            )
        # Bound by keyword: a closure would see the prompts of the last batch only.
        sides = {
            "fast": lambda prompts=prompts: generate_fast(model, prompts),
            "stock": lambda prompts=prompts: generate_stock(model, prompts),
        }
        times = interleaved(sides, rounds=rounds)
        rows.append(
            rate_row(
                f"width {size.width}, {size.layers} layers, {count} tokens, batch {batch}",
                ("one pass", times["fast"]),
                ("two passes", times["stock"]),
                batch * count,
                aim=Aim("at least", 1.6) if judged else None,
            )
        )
    return rows


if __name__ == "__main__":
    run_alone(measure, __doc__)
