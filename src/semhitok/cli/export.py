"""``semhitok export``: a trained model as a small checkpoint to share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from semhitok.cli.arguments import OptionalPath
from semhitok.cli.loading import load_processor, load_tokenizer
from semhitok.recipes.model_card import data_sources, model_card, read_data, read_figures
from semhitok.recipes.ship import newest_model, ship
from semhitok.tokenizers.unitok.processing import UniTokProcessor


@dataclass(frozen=True)
class Arguments:
    """Write a trained model as a small checkpoint to share, with a model card.

    SemHiTok: teacher, semantic branch and codebooks stay in float32, so that semantic ids are exactly those of the trained
    model; the pixel encoder and decoder are stored in bfloat16. UniTok: all that decides ids stays in float32; the decoder
    and the text tower are stored in bfloat16. It loads like any other checkpoint, in float32. Measure the export, not what
    it was made from.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_MODEL")]
    """Folder of a training run (the model of its last finished stage is taken) or of a model."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder to write; an earlier export in it is replaced."""
    name: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the name of OUT)")] = None
    """Title of the model card."""
    license: Annotated[str | None, tyro.conf.arg(metavar="SPDX", help_behavior_hint="")] = None
    """Licence of the weights, such as apache-2.0."""
    figures: OptionalPath = None
    """report.json of `semhitok evaluate`; its figures go into the model card."""
    data: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH ...", help_behavior_hint="")] = ()
    """Training sets of scenes: their sources, authors and licences go into the model card."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok export")
    figures = read_figures(options.figures) if options.figures is not None else None
    data = [read_data(path) for path in options.data]
    place = newest_model(Path(options.model))
    model = load_tokenizer(place or options.model, "cpu")
    name = options.name or options.out.resolve().name
    card = model_card(name, model, licence=options.license, figures=figures, data=data)
    provenance: dict[str, Any] = {"licence": options.license} if options.license else {}
    if data:
        provenance["sources"] = [f"{source} ({licence})" for source, licence, _, _ in data_sources(data)]
    processor = load_processor(options.model, model)
    texts = processor if isinstance(processor, UniTokProcessor) else None
    shipped = ship(model, options.out, card=card, provenance=provenance, processor=texts)
    print(f"exported {place or options.model}; stages done: {', '.join(model.config.stages) or 'none'}")
    for file, size in shipped.sizes.items():
        print(
            f"wrote {shipped.folder / file} ({size / 2**20:.2f} MB)"
            if size > 2**16
            else f"wrote {shipped.folder / file}"
        )
    print(f"{shipped.total / 2**20:.2f} MB in all")
    return 0
