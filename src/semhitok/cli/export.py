"""``semhitok export``: a trained model as a small checkpoint to share, or a tokenizer as graphs for other runtimes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from semhitok.cli.arguments import OptionalPath, UsageError, default
from semhitok.types import HeadPrecision

if TYPE_CHECKING:
    from semhitok.export.checkpoint import ExportedCheckpoint

MOST_IMAGES = 1000  # that an export is compared on


@dataclass(frozen=True)
class Arguments:
    """Write a trained model as a small checkpoint to share, with a model card, or a tokenizer as graphs for other runtimes.

    SemHiTok: teacher, semantic branch and codebooks stay in float32, so that semantic ids are exactly those of the trained
    model; the pixel encoder and decoder are stored in bfloat16. UniTok: everything that ids depend on stays in float32; the
    decoder and the text tower are stored in bfloat16. A unified language model is stored in bfloat16, without its image
    tokenizer if that is a bundled one. An export loads like any other checkpoint, in float32. Evaluate the export, not the
    original.

    As onnx or pt2, a tokenizer becomes two graphs, encoder (pixels to ids) and decoder (ids to pixels), for any number of
    images of its own size, which are run beside the model before they are kept. See docs/export.md.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_MODEL")]
    """Folder of a model, or of a training run, whose last finished stage is exported."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder to write; an earlier export in it is replaced."""
    format: Literal["checkpoint", "onnx", "pt2"] = "checkpoint"
    """checkpoint: weights and model card; onnx: ONNX files in fp32 and in int8 (extra: onnx); pt2: programs of torch.export,
    which AOTInductor compiles."""
    images: OptionalPath = None
    """With onnx and pt2: image file or folder of images on which the export is compared with the model; up to 1,000 are read.
    By default, 8 random images."""
    name: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the name of OUT)")] = None
    """Title of the model card; with onnx and pt2, the name in the metadata, by default that of the model."""
    license: Annotated[str | None, tyro.conf.arg(metavar="SPDX", help_behavior_hint="")] = None
    """Licence of the weights, such as apache-2.0."""
    figures: OptionalPath = None
    """report.json of `semhitok evaluate`, or report.md of `semhitok evaluate-mllm`; its figures go into the model card."""
    head: HeadPrecision = "bfloat16"
    """How the head of a unified language model is stored; float8 (e4m3) halves it and rounds its weights by up to 6 %."""
    image_guidance: Annotated[float | None, tyro.conf.arg(metavar="SCALE"), default("the model's own")] = None
    """Scale of classifier-free guidance with which a unified language model generates images where none is given."""
    image_top_k: Annotated[int | None, tyro.conf.arg(metavar="N"), default("the model's own")] = None
    """Number of most likely tokens from which it samples then; 0 for all."""
    data: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH ...", help_behavior_hint="")] = ()
    """Training sets of scenes: their sources, authors and licences go into the model card."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok export")
    _check(options)
    exported = _checkpoint(options) if options.format == "checkpoint" else _graphs(options)
    for file, size in exported.sizes.items():
        print(
            f"wrote {exported.folder / file} ({size / 2**20:.2f} MB)"
            if size > 2**16
            else f"wrote {exported.folder / file}"
        )
    print(f"{exported.total / 2**20:.2f} MB in all")
    return 0


def _check(options: Arguments) -> None:
    if options.format == "checkpoint" and options.images is not None:
        raise UsageError(
            "--images belongs to --format onnx and pt2: a checkpoint is compared with the weights themselves"
        )
    if options.format != "checkpoint" and options.head != "bfloat16":
        raise UsageError(f"--head belongs to a checkpoint: --format {options.format} has the graphs of a tokenizer")
    if options.format != "checkpoint" and _of_images(options):
        raise UsageError(f"--image-guidance and --image-top-k belong to a checkpoint, not to --format {options.format}")
    if options.format != "checkpoint" and (options.figures is not None or options.data):
        raise UsageError(f"--figures and --data belong to a model card, which --format {options.format} does not write")


def _checkpoint(options: Arguments) -> ExportedCheckpoint:
    from semhitok.export.model_card import data_sources, read_data
    from semhitok.inference.loading import find_model

    data = [read_data(path) for path in options.data]
    provenance: dict[str, Any] = {"licence": options.license} if options.license else {}
    if data:
        provenance["sources"] = [f"{source} ({licence})" for source, licence, _, _ in data_sources(data)]
    place, language = find_model(options.model)
    if options.head != "bfloat16" and not language:
        raise UsageError(f"--head {options.head} belongs to a unified language model, and {place} is a tokenizer")
    if _of_images(options) and not language:
        raise UsageError(
            f"--image-guidance and --image-top-k belong to a unified language model, and {place} is a tokenizer"
        )
    stages, exported = (_language if language else _tokenizer)(place, options, data, provenance)
    print(f"exported {place}; stages done: {', '.join(stages) or 'none'}")
    return exported


def _graphs(options: Arguments) -> ExportedCheckpoint:
    from semhitok.data.folder import image_files
    from semhitok.export.agreement import synthetic_images
    from semhitok.export.onnx_files import export_onnx
    from semhitok.export.programs import export_programs
    from semhitok.inference.loading import load_tokenizer
    from semhitok.tokenizers.image_processing import TokenizerImageProcessor

    model = load_tokenizer(options.model, "cpu")
    size = model.config.image_size
    if options.images is None:
        images = synthetic_images(8, size)
    else:
        files = image_files([options.images])[:MOST_IMAGES]
        images = TokenizerImageProcessor(size=size)(files)["pixel_values"]
    write = export_onnx if options.format == "onnx" else export_programs
    exported, agreements = write(
        model, options.out, name=options.name or Path(options.model).name, images=images, licence=options.license
    )
    print(
        f"exported {options.model}; compared with the model on {len(images)} {'images' if options.images else 'random images'}"
    )
    for precision, agreement in agreements.items():
        print(f"{precision}: {agreement}")
    return exported


def _tokenizer(
    place: str, options: Arguments, data: list[dict[str, Any]], provenance: dict[str, Any]
) -> tuple[list[str], ExportedCheckpoint]:
    from semhitok.export.model_card import model_card, read_figures
    from semhitok.export.tokenizer import export_tokenizer
    from semhitok.inference.loading import load_processor, load_tokenizer

    figures = read_figures(options.figures) if options.figures is not None else None
    model = load_tokenizer(place, "cpu")
    rounding = model.rounding  # looks at all weights
    card = model_card(_title(options), model, licence=options.license, figures=figures, data=data, rounding=rounding)
    processor = load_processor(place, model)
    texts = processor if model.has_text_tower else None
    exported = export_tokenizer(
        model, options.out, card=card, provenance=provenance, processor=texts, rounding=rounding
    )
    return model.config.stages, exported


def _language(
    place: str, options: Arguments, data: list[dict[str, Any]], provenance: dict[str, Any]
) -> tuple[list[str], ExportedCheckpoint]:
    import torch

    from semhitok.export.language_card import language_card
    from semhitok.export.language_model import export_language_model
    from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor

    figures = options.figures.read_text(encoding="utf-8") if options.figures is not None else ""
    model = SemHiTokForConditionalGeneration.from_pretrained(place, dtype=torch.float32)
    processor = SemHiTokMLLMProcessor.from_pretrained(place)
    for name, value in _of_images(options).items():
        setattr(model.config, name, value)
    card = language_card(_title(options), model, licence=options.license, figures=figures, data=data, head=options.head)
    exported = export_language_model(model, processor, options.out, card=card, provenance=provenance, head=options.head)
    return getattr(model.config, "stages", []), exported


def _of_images(options: Arguments) -> dict[str, Any]:
    """The given settings with which images are generated."""
    given = {name: getattr(options, name) for name in ("image_guidance", "image_top_k")}
    return {name: value for name, value in given.items() if value is not None}


def _title(options: Arguments) -> str:
    return options.name or options.out.resolve().name
