"""Evaluate a tokenizer on one or more sources of images: encode, decode, measure, report.

Shapes: B images, C = 3 channels, H x W pixels.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from semhitok.data.reading import SizedBatch, SizedImages, evenly_spaced
from semhitok.data.sample import ImageSource
from semhitok.data.transforms import to_float
from semhitok.evaluation.semantics.embedding import ImageEmbedder, TextEmbedder, TextTokenizer
from semhitok.evaluation.semantics.labels import ProbeFeatures
from semhitok.evaluation.semantics.language import LanguageMeasurement, LanguageScores
from semhitok.evaluation.tokenizer.report import EvaluationReport, GroupReport
from semhitok.evaluation.tokenizer.stages import stage_conflict
from semhitok.metrics.codebook import CodebookMetrics
from semhitok.metrics.frechet import MINIMUM_IMAGES, FeatureExtractor, FrechetMetric
from semhitok.metrics.probe import ProbeResult, probe
from semhitok.metrics.rate import RatePoint, rate_curves, tokenizer_bits
from semhitok.metrics.reconstruction import PerceptualDistance, ReconstructionMetrics
from semhitok.tokenizers.protocol import ImageTokenizer
from semhitok.types import FitMode
from semhitok.visualization.examples import Examples

Progress = Callable[[str, int, int], None]
"""(name of the source, images done, images in all)."""


@torch.no_grad()
def evaluate(
    model: ImageTokenizer,
    sources: Mapping[str, ImageSource],
    *,
    name: str = "tokenizer",
    batch_size: int = 32,
    limit: int | None = None,
    fit: FitMode = "crop",
    perceptual: PerceptualDistance | None = None,
    extractors: Sequence[FeatureExtractor] = (),
    probe_train: ImageSource | None = None,
    text_tokenizer: TextTokenizer | None = None,
    before: ImageTokenizer | None = None,
    example_images: int = 8,
    rate_images: int = 64,
    max_bad_share: float = 0.05,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Measure a tokenizer; every source is reported separately.

    Args:
        model: the tokenizer; it is put into eval mode. Images are moved to its device and dtype.
        sources: images by group name, for instance ``photographs`` and ``scenes (held out)``.
        name: name of the tokenizer in the report.
        limit: at most this many images of each source, evenly spaced; None for all.
        fit: how an image becomes a square of ``model.config.image_size`` pixels.
        perceptual: distance of (reconstructions, originals) in [-1,1], on the model's device.
        extractors: networks for Fréchet distances, skipped for sources of fewer than ``MINIMUM_IMAGES`` images.
        probe_train: labelled images on which the category probe is fitted; it is tested on every source with labels.
        text_tokenizer: the text tokenizer of a model with a text tower, for zero-shot classification and retrieval on
            sources with labels or captions.
        before: an earlier stage of the same tokenizer, whose semantic ids are compared on all images.
        example_images, rate_images: images of each source in the picture and in the rate curves; 0 leaves them out.
        max_bad_share: a larger share of bad images in a source is an error.
        progress: called after every batch.

    Raises:
        ValueError: no images, or too many bad ones, or a text tokenizer for a tokenizer without text tower.
    """
    if text_tokenizer is not None and not (isinstance(model, ImageEmbedder) and isinstance(model, TextEmbedder)):
        raise ValueError(f"a text tokenizer was given, but {name} has no text tower")
    if isinstance(model, nn.Module):
        model.eval()

    def reader(source: ImageSource) -> SizedImages:
        size = model.config.image_size
        return SizedImages(source, size, fit=fit, limit=limit, batch_size=batch_size, max_bad_share=max_bad_share)

    training = None
    if probe_train is not None:
        training = ProbeFeatures()
        for images in _batches(reader(probe_train), "probe training images", progress):
            pixel_values = _pixels(images, model)
            training.update(model, model.encode(pixel_values).ids, images.metadata, _embeddings(model, pixel_values))

    groups = {}
    for group, source in sources.items():
        sized = reader(source)
        measurement = _Measurement(
            model,
            len(sized),
            perceptual,
            extractors,
            training,
            text_tokenizer,
            example_images=example_images,
            rate_images=rate_images,
        )
        for images in _batches(sized, group, progress):
            measurement.update(images)
        groups[group] = measurement.report(group, sized)

    conflict = None
    if before is not None:
        every = (images for group, source in sources.items() for images in _batches(reader(source), group, progress))
        conflict = stage_conflict(before, model, (_pixels(images, model) for images in every))
    return EvaluationReport(
        name=name,
        image_size=model.config.image_size,
        fit=fit,
        tokens=model.num_tokens,
        vocab_size=model.vocab_size,
        codes_per_token=model.codes_per_token,
        bits=_bits(model),
        groups=groups,
        stage_conflict=conflict,
        environment=_environment(model),
    )


class _Measurement:
    """Everything measured on one source, batch by batch."""

    def __init__(
        self,
        model: ImageTokenizer,
        images: int,
        perceptual: PerceptualDistance | None,
        extractors: Sequence[FeatureExtractor],
        training: ProbeFeatures | None,
        text_tokenizer: TextTokenizer | None,
        *,
        example_images: int,
        rate_images: int,
    ) -> None:
        self.model = model
        self.scores = ReconstructionMetrics(perceptual=perceptual)
        self.native_scores = ReconstructionMetrics(perceptual=perceptual)
        self.frechet = [FrechetMetric(extractor) for extractor in extractors]
        # The configuration of a tokenizer with semantic ids says how many inner ids each of them has.
        sizes = getattr(model.config, "subcodebook_sizes", None) or getattr(model.config, "subcodebook_size", None)
        self.codes = CodebookMetrics(model.vocab_size, sizes, model.codes_per_token)
        self.training = training
        self.test = ProbeFeatures()
        self.text_tokenizer = text_tokenizer
        self.language = LanguageMeasurement()
        self.example_positions = set(evenly_spaced(images, example_images))
        self.rate_positions = set(evenly_spaced(images, rate_images))
        self.examples: list[tuple[Tensor, Tensor]] = []
        self.rated: list[tuple[Tensor, float]] = []

    def update(self, batch: SizedBatch) -> None:
        pixel_values = _pixels(batch, self.model)
        encoded = self.model.encode(pixel_values)
        reconstructions = self.model.decode(encoded.ids, encoded.grid).float()
        originals = pixel_values.float()
        self.codes.update(encoded.ids)
        if reconstructions.shape != originals.shape:
            # The tokenizer predicts a whole number of patches (378 px for 384 px with patch 14): report figures at the
            # image size first, and those at the predicted size as well.
            self.native_scores.update(_resample(originals, reconstructions.shape[-2:]), reconstructions)
            reconstructions = _resample(reconstructions, originals.shape[-2:])
        psnr = self.scores.update(originals, reconstructions).tolist()
        for metric in self.frechet:
            metric.update(originals, reconstructions)
        if self.training is not None or self.text_tokenizer is not None:
            embeddings = _embeddings(self.model, pixel_values)
            if self.training is not None:
                self.test.update(self.model, encoded.ids, batch.metadata, embeddings)
            if self.text_tokenizer is not None and embeddings is not None:
                self.language.update(embeddings, batch.metadata)
        for index, position in enumerate(batch.positions):
            if position in self.example_positions:
                self.examples.append((originals[index].cpu(), reconstructions[index].cpu()))
            if position in self.rate_positions:
                self.rated.append((batch.images[index], psnr[index]))

    def report(self, group: str, sized: SizedImages) -> GroupReport:
        if self.scores.images == 0:
            reason = f"all images are bad, the first: {sized.bad[0].reason}" if sized.bad else "it holds no images."
            raise ValueError(f"there is nothing to evaluate in {group}: {reason}")
        return GroupReport(
            fingerprint=sized.source.fingerprint,
            images_in_source=len(sized.source),
            reconstruction=self.scores.result(),
            reconstruction_native=self.native_scores.result() if self.native_scores.images else None,
            codebooks=self.codes.result(),
            frechet=[metric.result() for metric in self.frechet if self.scores.images >= MINIMUM_IMAGES],
            probe=self._probe(),
            language=self._language(),
            rate=self._rate(),
            rate_images=len(self.rated),
            bad=sized.bad,
            examples=self._examples(),
        )

    def _probe(self) -> dict[str, ProbeResult]:
        if self.training is None or not self.test.labels or not self.training.labels:
            return {}
        return {
            kind: probe(
                torch.cat(features),
                self.training.labels,
                torch.cat(self.test.features[kind]),
                self.test.labels,
                train_groups=self.training.concepts,
            )
            for kind, features in self.training.features.items()
        }

    def _language(self) -> LanguageScores | None:
        if self.text_tokenizer is None:
            return None
        assert isinstance(self.model, TextEmbedder), "checked by evaluate"
        return self.language.result(self.model, self.text_tokenizer)

    def _rate(self) -> dict[str, list[RatePoint]]:
        if not self.rated:
            return {}
        images, psnr = zip(*self.rated, strict=True)
        codes = f"{self.model.codes_per_token} x " if self.model.codes_per_token > 1 else ""
        setting = f"{self.model.num_tokens:,} tokens of {codes}{self.model.vocab_size:,}"
        return rate_curves(torch.stack(images), RatePoint(_bits(self.model), sum(psnr) / len(psnr), setting))

    def _examples(self) -> Examples | None:
        if not self.examples:
            return None
        originals, reconstructions = zip(*self.examples, strict=True)
        return Examples(torch.stack(originals), torch.stack(reconstructions))


def _batches(sized: SizedImages, name: str, progress: Progress | None) -> Iterator[SizedBatch]:
    for batch in sized:
        yield batch
        if progress is not None:
            progress(name, batch.positions[-1] + 1, len(sized))


def _pixels(batch: SizedBatch, model: ImageTokenizer) -> Tensor:
    """Images in [-1,1] on the model's device and in its dtype."""
    device, dtype = getattr(model, "device", "cpu"), getattr(model, "dtype", torch.float32)
    return to_float(batch.images.to(device)).to(dtype)


def _embeddings(model: ImageTokenizer, pixel_values: Tensor) -> Tensor | None:
    """Embeddings (B,E) of whole images, if the tokenizer has them."""
    return model.image_embedding(pixel_values) if isinstance(model, ImageEmbedder) else None


def _resample(images_BCHW: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(images_BCHW, tuple(size), mode="bicubic", antialias=True).clamp(-1, 1)


def _bits(model: ImageTokenizer) -> float:
    return tokenizer_bits(model.num_tokens * model.codes_per_token, model.vocab_size)


def _environment(model: ImageTokenizer) -> dict[str, str]:
    device = torch.device(getattr(model, "device", "cpu"))
    software = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "software": ", ".join([*software, f"transformers {transformers.__version__}"]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})",
        "precision": str(getattr(model, "dtype", torch.float32)).removeprefix("torch."),
    }
