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


def ablation_recipe() -> LanguageRecipe:
    """Stage align, then captions and questions with a loss on answers; everything but the tokenizer is trained."""
    recipe = mllm_nano()
    align = replace(recipe.align, loop=replace(recipe.align.loop, steps=400, keep_checkpoints=1))
    loop = replace(recipe.pretrain.loop, steps=700, batch_size=8, checkpoint_every=500, keep_checkpoints=1)
    optimizer = replace(recipe.pretrain.task.optimizer, learning_rate=2e-3, final_ratio=0.05)
    # No images are generated here, so the weight has no effect; it is recorded in the settings of finished results.
    task = replace(recipe.pretrain.task, optimizer=optimizer, image_weight=0.3)
    mix = Mix(caption=1, chat=2)
    stage = replace(recipe.pretrain, loop=loop, task=task, mix=mix, learn="answers", described=0.0)
    return replace(recipe, name="mllm-ablation", size=SIZE, stages=("align", "pretrain"), align=align, pretrain=stage)


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
        recipe = self.recipe
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

    def run(self, context: ExperimentContext, seed: int) -> dict[str, float]:
        """See ``Experiment``."""
        recipe = self.recipe
        for stage in recipe.stages:
            recipe = recipe.with_loop(stage, seed=seed)
        folder = context.runs / f"{self.name}-seed{seed}"
        cache = context.directory / "cache"
        train = partial(run_language, recipe, context.train_folder, cache=cache)
        context.train_run(f"{self.name}, seed {seed}", folder, train)
        trained = folder / "pretrain" / "model"
        model = SemHiTokForConditionalGeneration.from_pretrained(trained, dtype=torch.float32)
        model.eval().to(context.device)  # pyright: ignore[reportArgumentType]
        processor = SemHiTokMLLMProcessor.from_pretrained(trained)
        projector = ContinuousProjector.load(trained, model)
        report = understand(
            model,
            processor,
            context.test_folder,
            train_folder=context.train_folder,
            limit=context.test_images,
            projector=projector,
        )
        return understanding_figures(report)


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
