"""How many tokens per second does the unified model generate, compared with its bare language model?

    python -m benchmarks.language_tokens [--quick]

The bare model is transformers' own class with the same layers and a head of as many rows as ours multiplies: text rows for
text, all rows for images from the loop of transformers, visual rows in ``generate_images``. The last is compared with an
equally bare loop over the cache, the others with ``generate``.

Shapes: B sequences, L positions, V rows of the head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from benchmarks.language_models import (
    MIDDLE,
    NANO,
    PROMPT,
    QUICK,
    bare_language_model,
    random_prompts,
    rate_row,
    unified_model,
)
from benchmarks.measuring import Operation, interleaved
from benchmarks.reporting import Aim, Report, Row, run_alone
from torch import Tensor
from transformers import Qwen2ForCausalLM

from semhitok.mllm import Sampling, SemHiTokForConditionalGeneration
from semhitok.recipes.language_recipe import SmallLanguageModel

# Sizes of the language model, sides of the image in px (8 px a token), batches, rounds.
CASES = ((NANO, 64, (1, 8), 11), (MIDDLE, 64, (1, 8), 7))
QUICK_CASES = ((QUICK, 32, (1,), 3),)
NAMES = {
    "text": "generate",
    "bare text": "bare generate",
    "image": "generate",
    "bare image": "bare generate",
    "fast image": "generate_images",
    "bare loop": "bare loop",
    "bare visual": "bare generate",
}
PAIRS = (
    ("text", "text", "bare text"),
    ("image", "image", "bare image"),
    ("image", "fast image", "bare loop"),
    ("image", "fast image", "bare visual"),
)


@torch.no_grad()
def bare_loop(model: Qwen2ForCausalLM, ids_BL: Tensor, count: int) -> Tensor:
    """Greedy ids over the cache, (B,count): the minimum that a loop must do."""
    chosen, past = [], None
    position_ids = torch.arange(ids_BL.shape[1])[None].expand_as(ids_BL)
    for _ in range(count):
        outputs = model.model(ids_BL, position_ids=position_ids, past_key_values=past, use_cache=True)
        past = outputs.past_key_values
        ids_BL = model.lm_head(outputs.last_hidden_state[:, -1]).argmax(dim=-1, keepdim=True)
        position_ids = position_ids[:, -1:] + 1
        chosen.append(ids_BL)
    return torch.cat(chosen, dim=1)


def sides_of(
    size: SmallLanguageModel, model: SemHiTokForConditionalGeneration, batches: tuple[int, ...]
) -> dict[int, dict[str, Operation]]:
    """By batch: our kinds of generation and their bare counterparts, each with N tokens for every prompt."""
    vocabulary = model.vocabulary
    count, greedy = vocabulary.image_tokens, Sampling(temperature=0.0)
    heads = (vocabulary.text_size, vocabulary.size, vocabulary.visual_size)
    text, whole, visual = (bare_language_model(size, rows) for rows in heads)

    def sides(prompts: Tensor) -> dict[str, Operation]:
        begun = F.pad(prompts, (0, 1), value=1)  # where ours ends with the image begin id
        return {
            "text": lambda: model.generate(prompts, max_new_tokens=count)[:, PROMPT:],
            "bare text": lambda: _generated(text, prompts, count),
            "image": lambda: model.generate(prompts, generation_mode="image"),
            "bare image": lambda: _generated(whole, begun, count),
            "fast image": lambda: model.generate_images(prompts, sampling=greedy),
            "bare loop": lambda: bare_loop(visual, begun, count),
            "bare visual": lambda: _generated(visual, begun, count),
        }

    return {batch: sides(random_prompts(size, batch)) for batch in batches}


def measure(quick: bool) -> Report:
    """Every size and batch in interleaved rounds."""
    rows = [row for case in (QUICK_CASES if quick else CASES) for row in _rows(*case, judged=not quick)]
    return Report(
        name="language_tokens",
        title="Tokens of the unified model beside its bare language model",
        method="Qwen2 layers with random weights, 2,000 text and 8,192 visual ids, fp32, prompts of 16 tokens, as many new "
        "ones as an image has, greedy, no guidance. Both sides multiply equally many rows of the head.",
        rows=rows,
    )


def _rows(
    size: SmallLanguageModel, image_size: int, batches: tuple[int, ...], rounds: int, *, judged: bool
) -> list[Row]:
    model, rows = unified_model(size, image_size), []
    count = model.vocabulary.image_tokens
    for batch, sides in sides_of(size, model, batches).items():
        times = interleaved(sides, rounds=rounds)
        for what, ours, bare in PAIRS:
            rows.append(
                rate_row(
                    f"{what}, width {size.width}, {size.layers} layers, batch {batch}",
                    (NAMES[ours], times[ours]),
                    (NAMES[bare], times[bare]),
                    batch * count,
                    aim=Aim("at least", 0.9) if judged else None,
                )
            )
    return rows


def _generated(model: Qwen2ForCausalLM, prompts: Tensor, count: int) -> Tensor:
    return model.generate(prompts, max_new_tokens=count)[:, prompts.shape[1] :]  # pyright: ignore[reportAttributeAccessIssue]


if __name__ == "__main__":
    run_alone(measure, __doc__)
