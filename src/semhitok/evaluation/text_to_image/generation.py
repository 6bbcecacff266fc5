"""Text-to-image: generate images from captions of test scenes, and let a judge score whether they show what the prompts say.

The same judge scores real scenes and their reconstructions, which are an upper bound for generated images, and images
generated for other prompts, which show the level reached without reading the prompt.

Shapes: N prompts, C = 3 channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from semhitok.data.transforms import to_float
from semhitok.evaluation.text_to_image.judge import Found, Judge
from semhitok.evaluation.text_to_image.judge_scores import compare, count_of, holds
from semhitok.evaluation.text_to_image.prompts import Prompt, prompts_of
from semhitok.evaluation.text_to_image.report import (
    REAL,
    RECONSTRUCTED,
    GenerationReport,
    GenerationScores,
    guidance_name,
    shuffled_name,
)
from semhitok.inference.image_generator import ImageGenerator
from semhitok.metrics.frechet import (
    MINIMUM_IMAGES,
    FeatureExtractor,
    FeatureStatistics,
    efficientnet_lite2_features,
    frechet_distance,
)
from semhitok.mllm import Sampling, SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.prompts import check_guidance
from semhitok.scenes.truth import Progress, read_scenes
from semhitok.storage.cache import weights_path

SCENES = 4000  # maximum number of test scenes: some give prompts, the others are the reference of the Fréchet distance
BATCH = 32


def draw_and_judge(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    judge: Judge,
    folder: Path | str,
    *,
    guidances: Sequence[float] = (1.0, 2.0, 4.0, 7.0),
    prompts: int = 300,
    seed: int = 0,
    batch_size: int = 32,
    top_k: int = 0,
    top_p: float = 1.0,
    extractor: FeatureExtractor | None = None,
    progress: Progress | None = None,
) -> GenerationReport:
    """Generate an image for each prompt at each guidance scale, and score them beside real and reconstructed scenes.

    Args:
        model, processor: the unified model, with the encoder side of its image tokenizer.
        judge: knows the concepts of the scenes.
        folder: folder of test scenes (tars).
        guidances: guidance scales above 0; 1 disables guidance.
        prompts: maximum number of prompts, one for each scene; see ``prompts_of``.
        seed: prompt i is generated from seed + i, whatever the batch and the guidance.
        batch_size: prompts per batch.
        top_k, top_p: see ``Sampling``; the temperature is 1.
        extractor: for the Fréchet distance to scenes without a prompt; None for EfficientNet-Lite2 with the fetched
            weights. Skipped with fewer than ``MINIMUM_IMAGES`` images on either side.
        progress: called with a description, the number done and the total.

    Raises:
        ValueError: no scenes with objects in the folder, no prompts or guidances, a guidance of 0 or less, or a concept
            that the judge does not know.
    """
    if prompts < 1:
        raise ValueError(f"the number of prompts must be at least 1, got {prompts}")
    if not guidances:
        raise ValueError("at least one guidance is needed; 1 disables it")
    for guidance in guidances:
        check_guidance(guidance)
    scenes = read_scenes(folder, model.config.tokenizer_config.image_size, limit=SCENES, bare=False, progress=progress)
    asked = prompts_of(scenes.truths, prompts)
    judge.check_knows([concept for prompt in asked for concept, _ in prompt.numbers])
    of_prompts = [prompt.scene for prompt in asked]
    others = sorted(set(range(len(scenes.truths))) - set(of_prompts))
    frechet = FrechetReference.of(to_float(scenes.images[others]), len(asked), extractor)
    rows: dict[str, GenerationScores] = {}
    found: dict[str, list[list[Found]]] = {}

    def judge_row(name: str, images_NCHW: Tensor) -> None:
        found[name] = judge.find(images_NCHW)
        rows[name] = replace(score(found[name], asked), frechet=frechet.distance(images_NCHW))

    real_NCHW = to_float(scenes.images[of_prompts])
    judge_row(REAL, real_NCHW)
    judge_row(RECONSTRUCTED, reconstruct(model, real_NCHW))
    for guidance in guidances:
        drawn_NCHW = draw_images(
            model,
            processor,
            [prompt.text for prompt in asked],
            guidance=guidance,
            seed=seed,
            batch_size=batch_size,
            top_k=top_k,
            top_p=top_p,
            progress=progress,
        )
        judge_row(guidance_name(guidance), drawn_NCHW)
    best = max(guidances, key=lambda guidance: rows[guidance_name(guidance)].objects)
    if len(asked) > 1:
        drawn = found[guidance_name(best)]
        turned = len(asked) // 2
        rows[shuffled_name(best)] = score([*drawn[turned:], *drawn[:turned]], asked)
    truths = [scenes.truths[index] for index in of_prompts]
    return GenerationReport(
        rows=rows,
        guidances=tuple(guidances),
        judge={name: compare(found[name], truths) for name in (REAL, RECONSTRUCTED)},
        judge_fingerprint=judge.fingerprint,
        frechet_protocol=frechet.protocol,
        frechet_reference=len(others),
        scenes_fingerprint=scenes.fingerprint,
        seed=seed,
        top_k=top_k,
        top_p=top_p,
    )


@torch.no_grad()
def draw_images(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    texts: Sequence[str],
    *,
    guidance: float,
    seed: int = 0,
    batch_size: int = 32,
    top_k: int = 0,
    top_p: float = 1.0,
    progress: Progress | None = None,
) -> Tensor:
    """Generate an image for each text, (N,3,H,W) in [-1,1]; text i is generated from seed + i, whatever the batch.

    Raises:
        ValueError: guidance <= 0, or a text that is unusable as a prompt.
    """
    generator = ImageGenerator(model.eval(), processor, guidance, Sampling(top_k=top_k, top_p=top_p))  # pyright: ignore
    images = []
    for start in range(0, len(texts), batch_size):
        part = texts[start : start + batch_size]
        ids = generator.ids(part, range(seed + start, seed + start + len(part)))
        images.append(model.decode_image_tokens(ids).float().cpu())
        if progress is not None:
            progress(f"generating with {guidance_name(guidance)}", start + len(ids), len(texts))
    return torch.cat(images)


@torch.no_grad()
def reconstruct(model: SemHiTokForConditionalGeneration, images_NCHW: Tensor) -> Tensor:
    """Reconstructions of images (N,3,H,W) in [-1,1] by the model's image tokenizer."""
    tokenizer, found = model.image_tokenizer, []
    for part in images_NCHW.split(BATCH):
        ids = tokenizer.encode(part.to(model.device, tokenizer.dtype)).ids
        found.append(tokenizer.decode(ids).float().cpu())
    return torch.cat(found)


def score(found: Sequence[Sequence[Found]], prompts: Sequence[Prompt]) -> GenerationScores:
    """Compare the objects found in the image of each prompt with those that the prompt asks for."""
    wanted = right = exact = related = holding = 0
    for things, prompt in zip(found, prompts, strict=True):
        numbers = count_of(things)
        wanted += len(prompt.numbers)
        right += sum(concept in numbers for concept, _ in prompt.numbers)
        exact += all(numbers[concept] == number for concept, number in prompt.numbers)
        if prompt.relation is not None:
            related += 1
            holding += holds(things, *prompt.relation)
    return GenerationScores(
        objects=right / wanted,
        number=exact / len(prompts),
        place=holding / related if related else None,
        images=len(prompts),
        relations=related,
    )


class FrechetReference:
    """Distances to one reference; None if there are too few images."""

    def __init__(self, extractor: FeatureExtractor | None, reference: FeatureStatistics) -> None:
        self.extractor, self.reference = extractor, reference
        self.protocol = None if extractor is None else extractor.protocol

    @classmethod
    def of(cls, reference_NCHW: Tensor, images: int, extractor: FeatureExtractor | None) -> FrechetReference:
        if min(len(reference_NCHW), images) < MINIMUM_IMAGES:
            return cls(None, FeatureStatistics())
        extractor = extractor or efficientnet_lite2_features(weights_path("efficientnet_lite2.pth"))
        return cls(extractor, _statistics(extractor, reference_NCHW))

    def distance(self, images_NCHW: Tensor) -> float | None:
        if self.extractor is None:
            return None
        one, two = _statistics(self.extractor, images_NCHW), self.reference
        return frechet_distance(one.mean_D, one.covariance, two.mean_D, two.covariance)


@torch.no_grad()
def _statistics(extractor: FeatureExtractor, images_NCHW: Tensor) -> FeatureStatistics:
    statistics = FeatureStatistics()
    for part in images_NCHW.split(BATCH):
        statistics.update(extractor.extract(part))
    return statistics
