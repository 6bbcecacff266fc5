"""What an ablation asks of an experiment, and the place where experiments run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from semhitok.data.sample import ImageSource
from semhitok.data.sources import Subset
from semhitok.evaluation import EvaluationReport, efficientnet_lite2_features, evaluate
from semhitok.losses import VGGPerceptual
from semhitok.metrics.frechet import FeatureExtractor
from semhitok.metrics.reconstruction import PerceptualDistance
from semhitok.recipes.recipe import DataConfig
from semhitok.runs.preparation import Report, TrainingImages
from semhitok.storage.cache import require_weights, weights_path
from semhitok.tokenizers import ImageTokenizer
from semhitok.visualization.examples import draw_examples

GROUP = "test"


class InterruptionError(Exception):
    """A run was stopped by a signal; the same command goes on where it stopped."""


@dataclass
class ExperimentContext:
    """Data, folders and measuring build_metrics that all experiments share.

    Attributes:
        train, test: training images, and those that every experiment is measured on.
        train_folder, test_folder: where they lie; experiments with language read records there.
        data_name: of the training images, for provenance.
        directory: holds ``runs/`` (training, see ``runs``), ``cache/`` (teacher features, ids), ``pictures/``.
        device: to train and measure on.
        test_images: how many test images are measured, evenly spaced.
        report: takes lines for the user.
        perceptual, extractors: what reconstructions are measured with, see ``build_metrics``.
    """

    train: ImageSource
    test: ImageSource
    train_folder: Path
    test_folder: Path
    data_name: str
    directory: Path
    device: torch.device
    test_images: int
    report: Report
    perceptual: PerceptualDistance | None
    extractors: Sequence[FeatureExtractor]
    _images: dict[int, TrainingImages] = field(default_factory=dict, init=False)

    @property
    def runs(self) -> Path:
        """Folder of what was trained on these training images."""
        return self.directory / "runs" / self.train.fingerprint[:8]

    def images(self, image_size: int, config: DataConfig) -> TrainingImages:
        """The training images at a size, read once."""
        if image_size not in self._images:
            cache = self.directory / "cache"
            self._images[image_size] = TrainingImages(self.train, image_size, config, cache, self.report)
        return self._images[image_size]

    def measure(
        self, model: ImageTokenizer, name: str, *, reconstruction: bool = True, probe_images: int = 0
    ) -> dict[str, float]:
        """Figures of a tokenizer on the test images; leaves a picture of eight of them in ``pictures/NAME.png``.

        Args:
            model: on ``device``.
            name: of the run.
            reconstruction: False for a tokenizer that has not learned to draw: codes and probe only.
            probe_images: training images to fit the category probe on; 0 leaves it out.
        """
        report = evaluate(
            model,
            {GROUP: self.test},
            name=name,
            limit=self.test_images,
            probe_train=_first(self.train, probe_images) if probe_images else None,
            rate_images=0,
            perceptual=self.perceptual if reconstruction else None,
            extractors=self.extractors if reconstruction else (),
        )
        if not reconstruction:
            return {key: value for key, value in figures(report).items() if key.startswith(("semantic", "probe"))}
        folder = self.directory / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        examples = report.groups[GROUP].examples
        assert examples is not None
        draw_examples({GROUP: examples}, title=name, subtitle=report.summary()).save(folder / f"{name}.png")
        return figures(report)


def build_metrics(device: torch.device) -> tuple[PerceptualDistance, list[FeatureExtractor]]:
    """The perceptual distance and the Fréchet network of every table.

    Raises:
        ValueError: their weights are not there; says how to get them.
    """
    vgg, lite2 = (
        require_weights(weights_path(name), "ablations measure with the network")
        for name in ("vgg16_hed.h5", "efficientnet_lite2.pth")
    )
    return VGGPerceptual.from_hed(vgg).to(device), [efficientnet_lite2_features(lite2, device=device)]


class Experiment(Protocol):
    """One tokenizer to train and measure; several tables may show it, it is trained once for each seed.

    Attributes:
        name: unique, also the stem of its files.
    """

    @property
    def name(self) -> str: ...

    def settings(self) -> dict[str, Any]:
        """Everything that was chosen, as plain values."""
        ...

    def run(self, place: ExperimentContext, seed: int) -> dict[str, float]:
        """Train, resuming, and measure.

        Raises:
            InterruptionError: stopped by a signal.
        """
        ...


def figures(report: EvaluationReport) -> dict[str, float]:
    """The figures of a report by the names that tables use."""
    group = report.groups[GROUP]
    scores, books = group.reconstruction, group.codebooks
    found: dict[str, float | None] = {
        "psnr": scores.psnr,
        "ssim": scores.ssim,
        "perceptual": scores.perceptual,
        "frechet": group.frechet[0].distance if group.frechet else None,
        "usage": books.joint.usage,
        "perplexity": books.joint.perplexity,
        "vocabulary": float(books.joint.size),
        "bits": report.bits,
        "images": float(scores.images),
    }
    if books.semantic is not None:
        found |= {"semantic_usage": books.semantic.usage, "semantic_perplexity": books.semantic.perplexity}
    for kind, result in group.probe.items():
        found |= {f"probe_{kind}": result.accuracy, "probe_chance": result.chance}
    return {name: value for name, value in found.items() if value is not None}


def _first(source: ImageSource, count: int) -> ImageSource:
    return Subset(source, range(min(count, len(source))))
