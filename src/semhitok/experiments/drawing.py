"""What a small language model makes of a tokenizer's ids: how well it predicts them from captions, and what it draws.

Shapes: B scenes, L positions, N tokens of an image, C codes per token, C = 3 channels, H x W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from semhitok.data.packing import IGNORED
from semhitok.data.transforms import to_float
from semhitok.evaluation.text_to_image.generation import SCENES, FrechetReference, draw_images, reconstruct
from semhitok.evaluation.text_to_image.prompts import prompts_of
from semhitok.experiments.experiment import ExperimentContext
from semhitok.experiments.language import language_settings, small_recipe, train_language_model
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.recipes.language_recipe import LanguageRecipe, Mix
from semhitok.scenes.truth import read_scenes

GUIDANCE = 3.0
BATCH = 32


def drawing_recipe() -> LanguageRecipe:
    """Images from captions alone, for 400 steps of 8 rows: about 16,000 images."""
    recipe = small_recipe()
    stage = recipe.pretrain
    stage = replace(stage, loop=replace(stage.loop, steps=400), mix=Mix(text_to_image=1))
    return replace(recipe, name="drawing", stages=("pretrain",), pretrain=stage)


@dataclass(frozen=True)
class DrawingExperiment:
    """A language model that is trained to draw scenes from captions.

    Attributes:
        name: name of the experiment.
        recipe: complete; the seeds of its loops are replaced by the run's.
    """

    name: str
    recipe: LanguageRecipe

    def settings(self) -> dict[str, Any]:
        """Tokenizer, language model, adapter, data, losses, guidance."""
        return language_settings(self.recipe) | {"guidance": GUIDANCE}

    def run(self, context: ExperimentContext, seed: int) -> dict[str, float]:
        """See ``Experiment``. Half of the test scenes give prompts, the others are the reference of the Fréchet distance.

        The figures: ``perplexity`` of a code given the caption and the codes before it, ``predicted_bits`` of an image under
        that prediction, and the Fréchet distances ``frechet`` (no guidance), ``frechet_guided``, and of the
        reconstructions of the prompts' scenes, ``frechet_reconstructed``, the floor of the other two.
        """
        model, processor, _ = train_language_model(self.name, self.recipe, context, seed)
        size = model.config.tokenizer_config.image_size
        scenes = read_scenes(context.test_folder, size, limit=min(SCENES, 2 * context.test_images), bare=False)
        asked = prompts_of(scenes.truths, max(1, len(scenes.truths) // 2))
        texts, shown = [prompt.text for prompt in asked], [prompt.scene for prompt in asked]
        images_NCHW = to_float(scenes.images[shown])
        found = predicted(model, processor, texts, images_NCHW)
        others = sorted(set(range(len(scenes.truths))) - set(shown))
        extractor = next(iter(context.extractors), None)
        if extractor is None:
            return found
        reference = FrechetReference.of(to_float(scenes.images[others]), len(asked), extractor)
        rows = {"frechet_reconstructed": reconstruct(model, images_NCHW)}
        for name, guidance in (("frechet", 1.0), ("frechet_guided", GUIDANCE)):
            rows[name] = draw_images(model, processor, texts, guidance=guidance, seed=seed)
        distances = {name: reference.distance(images) for name, images in rows.items()}
        return found | {name: value for name, value in distances.items() if value is not None}


@torch.no_grad()
def predicted(
    model: SemHiTokForConditionalGeneration, processor: SemHiTokMLLMProcessor, texts: list[str], images_NCHW: Tensor
) -> dict[str, float]:
    """``perplexity`` of a code of these images given their texts and the codes before, and ``predicted_bits`` of an image.

    Args:
        model, processor: in eval mode.
        texts: a prompt for each image.
        images_NCHW: in [-1,1].
    """
    vocabulary, total = model.vocabulary, 0.0
    for start in range(0, len(texts), BATCH):
        part = images_NCHW[start : start + BATCH].to(model.device)
        inputs = processor(text=texts[start : start + BATCH], generation_mode="image", split_special_tokens=True)
        prompt_BL, mask_BL = inputs["input_ids"].to(model.device), inputs["attention_mask"].to(model.device)
        image_BN = prompt_BL.new_full((len(part), vocabulary.image_tokens), vocabulary.placeholder_id)
        output = model(
            input_ids=torch.cat([prompt_BL, image_BN], dim=1),
            attention_mask=torch.cat([mask_BL, torch.ones_like(image_BN)], dim=1),
            labels=torch.cat([torch.full_like(prompt_BL, IGNORED), image_BN], dim=1),
            pixel_values=part,
        )
        total += len(part) * output.loss.item()
    nats = total / len(texts)  # of a code, on average
    bits = nats / math.log(2) * vocabulary.image_tokens * vocabulary.codes_per_token
    return {"perplexity": math.exp(nats), "predicted_bits": bits}
