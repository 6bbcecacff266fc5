"""The protocol of an experiment, and its context: data, folders, device and metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from semhitok.data.sample import ImageSource
from semhitok.data.sources import Subset, open_source
from semhitok.evaluation import EvaluationReport, efficientnet_lite2_features, evaluate
from semhitok.losses import VGGPerceptual
from semhitok.metrics.frechet import FeatureExtractor
from semhitok.metrics.reconstruction import PerceptualDistance
from semhitok.recipes.recipe import DataConfig
from semhitok.runs.preparation import Report, TrainingImages
from semhitok.runs.stage_runner import RunOptions
from semhitok.storage.cache import require_weights, weights_path
from semhitok.tokenizers import ImageTokenizer
from semhitok.training.state import TrainState
from semhitok.visualization.examples import draw_examples

GROUP = "test"


class InterruptionError(Exception):
    """A run was stopped by a signal; the same command continues it."""


@dataclass
class ExperimentContext:
    """Data, folders, device and metrics that all experiments share.

    Attributes:
        train, test: training images, and those on which every experiment is measured.
        train_folder, test_folder: their folders, from which experiments with the language model read records.
        data_name: name of the training images, for provenance.
        directory: holds ``runs/`` (training, see ``runs``), ``cache/`` (teacher features, ids), ``pictures/``.
        device: device to train and measure on.
        test_images: number of test images to measure, evenly spaced.
        report: called with lines for the user.
        perceptual, extractors: metrics of reconstructions, see ``build_metrics``.
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
        """Folder of the runs on these training images."""
        return self.directory / "runs" / self.train.fingerprint[:8]

    def images(self, image_size: int, config: DataConfig) -> TrainingImages:
        """The training images at a size, read once on first use."""
        if image_size not in self._images:
            cache = self.directory / "cache"
            self._images[image_size] = TrainingImages(self.train, image_size, config, cache, self.report)
        return self._images[image_size]

    def train_run(
        self,
        title: str,
        folder: Path,
        run: Callable[[RunOptions], TrainState],
        *,
        start_from: Path | None = None,
    ) -> None:
        """Train what is not finished in ``folder``, resuming an interrupted run.

        Args:
            title: title of the run, for the user.
            folder: folder of the run.
            run: called with the options of the run.
            start_from: see ``RunOptions``.

        Raises:
            InterruptionError: stopped by a signal.
        """
        self.report(f"{title} in {folder}")
        options = RunOptions(folder, self.device, self.data_name, start_from=start_from, report=self.report)
        if run(options).interrupted:
            raise InterruptionError

    def measure(
        self, model: ImageTokenizer, name: str, *, reconstruction: bool = True, probe_images: int = 0
    ) -> dict[str, float]:
        """Measure a tokenizer on the test images and write a picture of eight of them to ``pictures/NAME.png``.

        Args:
            model: on ``device``.
            name: name of the run.
            reconstruction: False for a tokenizer without a trained decoder: codes and probe only.
            probe_images: number of training images to fit the category probe on; 0 leaves it out.
        """
        report = evaluate(
            model,
            {GROUP: self.test},
            name=name,
            limit=self.test_images,
            probe_train=Subset(self.train, range(min(probe_images, len(self.train)))) if probe_images else None,
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


def open_context(
    train: Path, test: Path, out: Path, device: torch.device, test_images: int, report: Report
) -> ExperimentContext:
    """The context of experiments on two data sets on disk, with all metrics.

    Args:
        train, test: folders of images; see ``ExperimentContext`` for the rest.

    Raises:
        ValueError: a folder has no images, or weights of the metrics are missing.
    """
    sources = open_source(train), open_source(test)
    perceptual, extractors = build_metrics(device)
    return ExperimentContext(
        train=sources[0],
        test=sources[1],
        train_folder=train,
        test_folder=test,
        data_name=train.name,
        directory=out,
        device=device,
        test_images=test_images,
        report=report,
        perceptual=perceptual,
        extractors=extractors,
    )


def language_context(context: ExperimentContext, train: Path, test: Path) -> ExperimentContext:
    """The context of experiments with a language model on two folders of scenes, with all else as in ``context``.

    Raises:
        ValueError: a folder has no images.
    """
    sources = open_source(train), open_source(test)
    folders = {"train_folder": train, "test_folder": test, "data_name": train.name}
    return replace(context, train=sources[0], test=sources[1], **folders)


def build_metrics(device: torch.device) -> tuple[PerceptualDistance, list[FeatureExtractor]]:
    """The perceptual distance and the Fréchet network of every table.

    Raises:
        ValueError: their weights are missing; the message says how to get them.
    """
    vgg, lite2 = (
        require_weights(weights_path(name), "ablations measure with the network")
        for name in ("vgg16_hed.h5", "efficientnet_lite2.pth")
    )
    return VGGPerceptual.from_hed(vgg).to(device), [efficientnet_lite2_features(lite2, device=device)]


class Experiment(Protocol):
    """One tokenizer to train and measure, once for each seed; several tables may show it.

    Attributes:
        name: unique, also the stem of its files.
    """

    @property
    def name(self) -> str: ...

    def settings(self) -> dict[str, Any]:
        """All settings, as plain values."""
        ...

    def run(self, context: ExperimentContext, seed: int) -> dict[str, float]:
        """Train, resuming, and measure.

        Raises:
            InterruptionError: stopped by a signal.
        """
        ...


def figures(report: EvaluationReport) -> dict[str, float]:
    """The figures of a report under the names that tables use."""
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
