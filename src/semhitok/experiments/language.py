"""Experiments with the language model: ``mllm_nano`` in the style of LLaVA-v1.5, image understanding only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch

from semhitok.evaluation.understanding.understand import UnderstandingReport, understand
from semhitok.experiments.experiment import ExperimentContext
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.continuous import ContinuousProjector
from semhitok.recipes.language import mllm_nano
from semhitok.recipes.language_recipe import LanguageRecipe, Mix, SmallLanguageModel
from semhitok.runs.language import run_language
from semhitok.training.tasks.word_alignment import GAIN, SHARPNESS

# Small enough that a run of some CPU minutes sees enough images for the rows to differ.
SIZE = SmallLanguageModel(layers=4, width=128, heads=4, key_value_heads=2, feed_forward=256)
SMALL_CODE_HEAD = {"code_head_layers": 2, "code_head_width": 128, "code_head_heads": 4}
"""Of the language model's width: the default would cost 20 times the language model."""


def ablation_recipe() -> LanguageRecipe:
    """Stage align, then captions and questions with a loss on answers; everything but the tokenizer is trained."""
    recipe = mllm_nano()
    aligning = replace(recipe.align.task, chunk_tokens=128)
    align = replace(recipe.align, loop=replace(recipe.align.loop, steps=400, keep_checkpoints=1), task=aligning)
    loop = replace(recipe.pretrain.loop, steps=700, batch_size=8, checkpoint_every=500, keep_checkpoints=1)
    optimizer = replace(recipe.pretrain.task.optimizer, learning_rate=2e-3, final_ratio=0.05)
    # No images are generated here, so the weight has no effect; it and the chunk are recorded in the settings of finished results.
    task = replace(recipe.pretrain.task, optimizer=optimizer, image_weight=0.3, chunk_tokens=128)
    mix = Mix(caption=1, chat=2)
    stage = replace(recipe.pretrain, loop=loop, task=task, mix=mix, learn="answers", described=0.0)
    return replace(recipe, name="mllm-ablation", size=SIZE, stages=("align", "pretrain"), align=align, pretrain=stage)


def small_recipe() -> LanguageRecipe:
    """``ablation_recipe`` at a third of its steps and with one adapter for tokenizers of any kind, for the comparison."""
    recipe = replace(ablation_recipe(), name="answers", adapter="single", size=replace(SIZE, **SMALL_CODE_HEAD))
    return recipe.with_loop("align", steps=130).with_loop("pretrain", steps=230)


@dataclass(frozen=True)
class UnderstandingExperiment:
    """A language model to train on captions and questions, and to ask about the test scenes.

    Attributes:
        name: name of the experiment.
        recipe: complete; the seeds of its loops are replaced by the run's.
    """

    name: str
    recipe: LanguageRecipe = field(default_factory=ablation_recipe)

    def settings(self) -> dict[str, Any]:
        """Tokenizer, language model, adapter, data and losses."""
        return language_settings(self.recipe)

    def run(self, context: ExperimentContext, seed: int) -> dict[str, float]:
        """See ``Experiment``."""
        model, processor, projector = train_language_model(self.name, self.recipe, context, seed)
        report = understand(
            model,
            processor,
            context.test_folder,
            train_folder=context.train_folder,
            limit=context.test_images,
            projector=projector,
        )
        return understanding_figures(report)


def language_settings(recipe: LanguageRecipe) -> dict[str, Any]:
    """The settings of an experiment with the language model."""
    return {
        "tokenizer": recipe.tokenizer,
        "size": asdict(recipe.size),
        "adapter": "continuous" if recipe.continuous else recipe.adapter,
        "mix": asdict(recipe.pretrain.mix),
        "learn": recipe.pretrain.learn,
        "described": recipe.pretrain.described,
        "row_length": recipe.pretrain.row_length,
        "steps": recipe.pretrain.loop.steps,
        "batch_size": recipe.pretrain.loop.batch_size,
        "task": asdict(recipe.pretrain.task),
        "align": asdict(recipe.align) if "align" in recipe.stages else None,
        "alignment": {"sharpness": SHARPNESS, "gain": GAIN} if "align" in recipe.stages else None,
    }


def train_language_model(
    name: str, recipe: LanguageRecipe, context: ExperimentContext, seed: int
) -> tuple[SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor, ContinuousProjector | None]:
    """Train what is not finished, resuming; the model in eval mode on the context's device.

    Raises:
        InterruptionError: stopped by a signal.
    """
    for stage in recipe.stages:
        recipe = recipe.with_loop(stage, seed=seed)
    folder = context.runs / f"{name}-seed{seed}"
    train = partial(run_language, recipe, context.train_folder, cache=context.directory / "cache")
    context.train_run(f"{name}, seed {seed}", folder, train)
    trained = folder / "pretrain" / "model"
    model = SemHiTokForConditionalGeneration.from_pretrained(trained, dtype=torch.float32)
    model.eval().to(context.device)  # pyright: ignore[reportArgumentType]
    return model, SemHiTokMLLMProcessor.from_pretrained(trained), ContinuousProjector.load(trained, model)


def understanding_figures(report: UnderstandingReport) -> dict[str, float]:
    """The figures of a report under the names that tables use."""
    found: dict[str, float] = {"scenes": float(report.scenes)}
    for kind in ("existence", "count", "position", "category"):
        if kind in report.questions:
            found[kind] = report.model.accuracy[kind].share
            found[f"{kind}_blind"] = report.prior.accuracy[kind].share
    if report.model.captions is not None:
        found["captions"] = report.model.captions.f1
    return found
