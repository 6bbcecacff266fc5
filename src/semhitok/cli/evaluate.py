"""``semhitok evaluate``: measure a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from semhitok.cli.arguments import Count, DataPlaces, Device, Limit, OptionalPath, UsageError
from semhitok.cli.progress import progress_bars
from semhitok.storage.cache import require_weights, weights_path
from semhitok.types import FitMode

if TYPE_CHECKING:
    import torch

    from semhitok.data.sample import ImageSource
    from semhitok.evaluation import EvaluationReport
    from semhitok.evaluation.semantics.language import LanguageScores
    from semhitok.metrics.frechet import FeatureExtractor
    from semhitok.metrics.reconstruction import PerceptualDistance

TEST_PHOTOGRAPHS = "test-photographs"


@dataclass(frozen=True)
class Arguments:
    """Measure a tokenizer on one or more sets of images, each reported separately.

    Reports PSNR, SSIM, perceptual and Fréchet distance; usage and perplexity of the codebooks; PSNR against bits,
    compared with WebP, JPEG and down-sampling; with --probe-train a category probe; with --before whether the stages
    conflict; and, for tokenizers with a text tower, zero-shot classification and image-text retrieval on images with
    labels or captions. Writes report.json, report.md, reconstructions.png and a rate plot for each set to the folder --out.
    """

    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """Folder of a model, or of a run, whose last finished stage is used; a hub id; or the name of a bundled checkpoint."""
    data: DataPlaces
    """Sets of images: folder, tars, parquet file or Hugging Face data set; reported under the name of the folder, or as
    NAME with NAME=PATH. Pass photographs and scenes as separate sets; `test-photographs` is the set of seven that
    come with scikit-image and scikit-learn."""
    limit: Limit = None
    """Maximum number of images of each set and of --probe-train, evenly spaced."""
    fit: FitMode = "crop"
    """How to make images square: crop the centre, or resize (squeeze)."""
    allow_outside: bool = False
    """Also read images that a Hugging Face data set stores as paths outside its folder."""
    probe_train: OptionalPath = None
    """Labelled images (scenes of the train split) to fit the category probe on; it is tested on each set with labels."""
    before: Annotated[str | None, tyro.conf.arg(metavar="CHECKPOINT", help_behavior_hint="")] = None
    """An earlier stage of the same SemHiTok tokenizer, to check that its semantic ids and features are bit-identical."""
    perceptual: bool = True
    """Perceptual distance on VGG16; needs its weights from `semhitok data fetch weights`."""
    frechet: bool = True
    """Fréchet distance on EfficientNet-Lite2, for at least 100 images; needs its weights from `semhitok data fetch weights`."""
    inception: OptionalPath = None
    """torch-fidelity's Inception weights, for rFID by its protocol; `semhitok rfid` measures nothing else, on any number of GPUs."""
    batch_size: Count = 32
    """Number of images per batch."""
    device: Device = None
    """Device to run on: cpu, cuda, or the number of a GPU, such as 1 (the same as cuda:1)."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("evaluation")
    """Folder to write to."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok evaluate")
    from semhitok.data.sources import open_source
    from semhitok.evaluation import evaluate
    from semhitok.inference.loading import load_processor, load_tokenizer

    sources = open_groups(options.data, allow_outside=options.allow_outside)
    probe_train = None
    if options.probe_train is not None:
        probe_train = open_source(options.probe_train, allow_outside=options.allow_outside)
    model = load_tokenizer(options.checkpoint, options.device)
    before = load_tokenizer(options.before, options.device) if options.before is not None else None
    if before is not None and None in (model.semantic_codebook_size, before.semantic_codebook_size):
        raise UsageError("--before compares semantic ids, which only SemHiTok checkpoints have: leave it out")
    processor = load_processor(options.checkpoint, model)
    extractors = _extractors(options, model.device)
    perceptual = _perceptual(model.device) if options.perceptual else None
    with progress_bars() as advance:
        report = evaluate(
            model,
            sources,
            name=_name_of(options.checkpoint),
            batch_size=options.batch_size,
            limit=options.limit,
            fit=options.fit,
            perceptual=perceptual,
            extractors=extractors,
            probe_train=probe_train,
            text_tokenizer=getattr(processor, "tokenizer", None),
            before=before,
            progress=advance,
        )
    paths = report.save(options.out)
    print("\n".join(_summary(report)))
    for path in paths.values():
        print(f"wrote {path}")
    return 0


def open_groups(places: Sequence[str], *, allow_outside: bool = False) -> dict[str, ImageSource]:
    """Sources by name: ``NAME=PATH``, or a path under the name of its folder (of its file, without the ending).

    Raises:
        UsageError: two sets of the same name.
        ValueError: nothing to read at a path.
    """
    from semhitok.data.photographs import photographs
    from semhitok.data.sources import open_source

    groups: dict[str, ImageSource] = {}
    for place in places:
        if place == TEST_PHOTOGRAPHS and not Path(place).exists():
            groups[place] = photographs()
            continue
        name, separator, path = place.partition("=")
        if not separator or not name or Path(place).exists():
            name, path = "", place
        resolved = Path(path).resolve()
        name = name or (resolved.stem if resolved.suffix in (".tar", ".parquet") else resolved.name)
        if name in groups:
            raise UsageError(f"two sets of images are called {name!r}; name one of them: NAME={path}")
        groups[name] = open_source(path, allow_outside=allow_outside)
    return groups


def _extractors(options: Arguments, device: torch.device) -> list[FeatureExtractor]:
    from semhitok.evaluation import efficientnet_lite2_features, inception_features

    found = []
    if options.frechet:
        weights = _weights("efficientnet_lite2.pth", "Fréchet distance", "EfficientNet-Lite2")
        found += [efficientnet_lite2_features(weights, device=device)] if weights else []
    if options.inception is not None:
        found.append(inception_features(options.inception, device=device))
    return found


def _perceptual(device: torch.device) -> PerceptualDistance | None:
    from semhitok.losses import VGGPerceptual

    weights = _weights("vgg16_hed.h5", "perceptual distance", "VGG16")
    if weights is None:
        return None
    try:
        return VGGPerceptual.from_hed(weights).to(device)
    except ImportError as error:  # h5py, which reads them, is an extra
        print(f"skipped the perceptual distance: {error}")
        return None


def _weights(name: str, what: str, network: str) -> Path | None:
    """Path of a network's weights; if they were not fetched, prints what is skipped and returns None."""
    try:
        return require_weights(weights_path(name), f"it needs the weights of {network}")
    except ValueError as error:
        print(f"skipped the {what}: {error}")
        return None


def _name_of(checkpoint: str) -> str:
    """``runs/nano/decoder/model`` -> ``nano/decoder``; other folders and ids by their last part."""
    parts = [part for part in Path(checkpoint).parts if part not in ("/", ".", "..")] or [checkpoint]
    return "/".join(parts[-3:-1]) if parts[-1] == "model" and len(parts) > 1 else parts[-1]


def _language(scores: LanguageScores) -> list[str]:
    from semhitok.visualization.markdown import percent

    figures = [
        f"zero-shot {kind} {percent(found.top1)} (chance {percent(found.chance_top1)})"
        for kind, found in scores.zero_shot.items()
    ]
    if scores.retrieval is not None:
        for direction, recall in (
            ("text to image", scores.retrieval.text_to_image),
            ("image to text", scores.retrieval.image_to_text),
        ):
            figures.append(f"{direction} recall at 5 {percent(recall.at[5])} (chance {percent(recall.chance[5])})")
    return figures


def _summary(report: EvaluationReport) -> list[str]:
    lines = [f"{report.name}: {report.summary()}"]
    for name, group in report.groups.items():
        scores, joint = group.reconstruction, group.codebooks.joint
        figures = [f"{scores.images:,} images", f"PSNR {scores.psnr:.2f} dB", f"SSIM {scores.ssim:.3f}"]
        if scores.perceptual is not None:
            figures.append(f"perceptual {scores.perceptual:.4f}")
        figures += [f"{score.name} {score.distance:.2f}" for score in group.frechet]
        figures.append(f"{100 * joint.usage:.1f} % of {joint.size:,} codes used, perplexity {joint.perplexity:,.0f}")
        if group.codebooks.worst is not None:
            worst = group.codebooks.by_codebook[group.codebooks.worst]
            figures[-1] += f" (means; worst codebook {100 * worst.usage:.1f} %, {worst.perplexity:,.0f})"
        for kind, called in (("semantic", "probe"), ("image", "probe of image embeddings")):
            if kind in group.probe:
                probe = group.probe[kind]
                figures.append(f"{called} {100 * probe.accuracy:.1f} % (chance {100 * probe.chance:.1f} %)")
        if group.language is not None:
            figures += _language(group.language)
        lines.append(f"{name}: {', '.join(figures)}")
        lines += [f"  left out {bad.key}: {bad.reason}" for bad in group.bad[:5]]
        if group.bad:
            lines.append(f"  {len(group.bad)} unreadable images left out in all")
    if report.stage_conflict is not None:
        lines.append(report.stage_conflict.sentence())
    return lines
