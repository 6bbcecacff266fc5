"""The unified model and bare language models with the same layers and random weights, and their rates.

Shapes: V rows of the head.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from benchmarks.measuring import Spread, Timing, paired_ratio
from benchmarks.reporting import Aim, Row
from torch import Tensor
from transformers import Qwen2ForCausalLM

from semhitok.mllm import SemHiTokForConditionalGeneration
from semhitok.recipes import nano
from semhitok.recipes.language_recipe import SmallLanguageModel
from semhitok.runs.language_models import small_config
from semhitok.teachers import TeacherConfig
from semhitok.tokenizers import SemHiTokConfig, SemHiTokModel

NANO = SmallLanguageModel(layers=6, width=256, heads=4, key_value_heads=2, feed_forward=448)
MIDDLE = replace(NANO, layers=8, width=512, heads=8, key_value_heads=4, feed_forward=1408)
QUICK = replace(NANO, layers=1, width=32, feed_forward=48)
PROMPT = 16


def bare_language_model(size: SmallLanguageModel, rows: int) -> Qwen2ForCausalLM:
    """A Qwen2 with a head of V rows, in eval mode and without an end id."""
    torch.manual_seed(0)
    return Qwen2ForCausalLM(small_config(size, rows, end=None, padding=0)).eval()


def unified_model(size: SmallLanguageModel, image_size: int) -> SemHiTokForConditionalGeneration:
    """The same layers over text and the 8,192 ids of ``nano``, whose tokens cover 8 px each; there is no image encoder."""
    text = bare_language_model(size, size.vocab_size)
    architecture = nano().model | {"image_size": image_size, "encoder": False}
    config = SemHiTokConfig(TeacherConfig(image_size=2 * image_size), **architecture)  # pyright: ignore
    model = SemHiTokForConditionalGeneration.from_language_model(text, SemHiTokModel(config).eval()).eval()
    # Visual rows are initialised to the mean of the text rows: if all were equal, no id would be the most likely one.
    torch.nn.init.normal_(model.lm_head.weight)
    return model


def random_prompts(size: SmallLanguageModel, batch: int) -> Tensor:
    """Text ids (batch,16) without padding."""
    return torch.randint(1, size.vocab_size, (batch, PROMPT), generator=torch.Generator().manual_seed(batch))


def rate_row(
    what: str, left: tuple[str, Timing], right: tuple[str, Timing], tokens: int, *, aim: Aim | None = None
) -> Row:
    """Tokens per second of two sides that generate equally many tokens per round, from timings of the same rounds."""
    (left_name, left_timing), (right_name, right_timing) = left, right
    rates = [Spread.of([tokens / seconds for seconds in timing.wall]) for timing in (left_timing, right_timing)]
    return Row(
        what,
        left_name,
        rates[0],
        right_name,
        rates[1],
        paired_ratio(right_timing.wall, left_timing.wall),
        "tokens/s",
        paired_ratio(right_timing.cpu, left_timing.cpu).median,
        aim,
    )
