"""The model card of a checkpoint to share: what it is, how and on what it was trained, how good it is, its limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from semhitok.metrics.rate import tokenizer_bits
from semhitok.tokenizers.protocol import CardFacts, Rounding, Tokenizer
from semhitok.tokenizers.registry import tokenizer_kind
from semhitok.tokenizers.settings import parameters_of
from semhitok.visualization.markdown import percent, table

NOT_STATED = "not stated"


def model_card(
    name: str,
    model: Tokenizer,
    *,
    licence: str | None,
    figures: Mapping[str, Any] | None,
    data: Sequence[Mapping[str, Any]],
    rounding: Rounding | None = None,
) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        name: name of the checkpoint.
        model: the model to describe; its configuration holds stages and provenance.
        licence: SPDX name of the licence of the weights.
        figures: the content of a ``report.json`` of ``semhitok evaluate``.
        data: the contents of the ``dataset.json`` of each training set of scenes.
        rounding: how the export stores it; by default the model's own, found anew.

    Raises:
        ValueError: figures or data have an unexpected form, or the model has no tokens to describe.
    """
    facts = model.card_facts()
    front = ["---", *([f"license: {licence.lower()}"] if licence else []), "library_name: semhitok"]
    front += ["tags:", "- image-tokenizer", "- vector-quantization", "---"]
    sections = [
        "\n".join(front),
        f"# {name}",
        f"A {facts.name} image tokenizer ({facts.paper}): {_in_short(model)}.",
        _use(name, model, facts),
        _facts(model, facts, licence, rounding or model.rounding),
        _training(model),
        data_section(data),
        _figures(figures),
        _limits(model, facts, data),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def read_figures(path: Path) -> dict[str, Any]:
    """Read a report of ``semhitok evaluate``.

    Raises:
        ValueError: the file is not one.
    """
    return _read(path, "groups", "a report.json of `semhitok evaluate`")


def read_data(path: Path) -> dict[str, Any]:
    """Read what a set of scenes was made from; ``path`` is its folder or the ``dataset.json`` in it.

    Raises:
        ValueError: the file is not one.
    """
    return _read(
        path / "dataset.json" if path.is_dir() else path, "sources", "a dataset.json of `semhitok data scenes`"
    )


def data_sources(data: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, int, list[str]]]:
    """Source, licence, number of pictures and authors over all sets."""
    found: dict[str, tuple[int, set[str]]] = {}
    for entry in data:
        for title, row in entry["sources"].items():
            pictures, authors = found.get(title, (0, set()))
            # Splits share cut-outs: the largest number is a lower bound, the sum would count them twice.
            found[title] = max(pictures, int(row["pictures"])), authors | set(row["authors"])
    return [
        (*_split_title(title), pictures, sorted({_without_address(author) for author in authors} - {""}))
        for title, (pictures, authors) in found.items()
    ]


def _read(path: Path, key: str, what: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not {what}: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get(key), dict):
        raise ValueError(f"{path} is not {what}: it has no {key!r}")
    return content


def _split_title(title: str) -> tuple[str, str]:
    """``mate-backgrounds (GPL-2+)`` -> the package and its licence."""
    match = re.fullmatch(r"(.*?) \((.*)\)", title)
    return (match[1], match[2]) if match else (title, NOT_STATED)


def _without_address(author: str) -> str:
    """Credit names, but drop the e-mail addresses that some files give beside them."""
    return re.sub(r"\s*[(<\[]?\S+@\S+", "", author).strip(" ,;")


def _bits(model: Tokenizer) -> float:
    """Bits of an image of the default size."""
    return tokenizer_bits(model.num_tokens * model.codes_per_token, model.vocab_size)


def _in_short(model: Tokenizer) -> str:
    size, bits, codes = model.config.image_size, _bits(model), model.codes_per_token
    several, each = (f" of {codes} codes", " each") if codes > 1 else ("", "")
    tokens = f"{model.num_tokens:,} tokens{several} out of {model.vocab_size:,}{each}"
    return f"{size} x {size} pixels become {tokens} ({bits:,.0f} bits, {bits / 8:,.0f} bytes), and an image again"


def _use(name: str, model: Tokenizer, facts: CardFacts) -> str:
    size, kind = model.config.image_size, type(model).__name__
    codes = f", {model.codes_per_token}" if model.codes_per_token > 1 else ""
    lines = [
        f"from semhitok import {', '.join(sorted(['TokenizerImageProcessor', kind]))}",
        *facts.imports,
        "",
        f'model = {kind}.from_pretrained("{name}").eval()  # this folder, or its id on a hub',
        f'images = TokenizerImageProcessor.from_pretrained("{name}")(["photograph.jpg"])["pixel_values"]  '
        f"# (1, 3, {size}, {size})",
        f"ids = model.encode(images).ids  # (1, {model.num_tokens}{codes}), each below {model.vocab_size}",
        f"copies = model.decode(ids)  # (1, 3, {size}, {size}) in [-1, 1]",
        *(line.replace("NAME", name) for line in facts.use),
    ]
    return "\n".join(["## Use", "", "```python", *lines, "```"])


def _facts(model: Tokenizer, facts: CardFacts, licence: str | None, rounding: Rounding) -> str:
    parts = parameters_of(model)  # pyright: ignore[reportArgumentType]
    every = parts.pop("all")
    by_part = ", ".join(f"{part.replace('_', ' ')} {number:,}" for part, number in parts.items())
    rows = [
        *facts.rows,
        ["parameters", f"{every:,}: {by_part}"],
        ["stored as", f"float32; {rounding.sentence.replace(' in ', ' as ')}; loads as float32"],
        ["licence of the weights", licence or NOT_STATED],
    ]
    return "## What it is\n\n" + table(["", ""], rows)


def _training(model: Tokenizer) -> str:
    provenance = model.config.provenance
    rows = []
    for stage in tokenizer_kind(model.config.model_type).stages:
        if stage in model.config.stages:
            entry = provenance.get(stage, {})
            steps, samples = (f"{entry[key]:,}" if key in entry else NOT_STATED for key in ("steps", "samples"))
            said = [str(entry.get(key, NOT_STATED)) for key in ("recipe", "data", "date")]
            rows.append([stage, said[0], said[1], steps, samples, entry.get("perceptual", "none"), said[2]])
    if not rows:
        return "## How it was trained\n\nIt was not trained: the weights are random."
    head = ["stage", "recipe", "data", "steps", "images seen", "perceptual loss", "date"]
    return "## How it was trained\n\n" + table(head, rows)


def data_section(data: Sequence[Mapping[str, Any]]) -> str:
    """Sources, licences and authors of the training sets; nothing without any."""
    sources = data_sources(data)
    if not sources:
        return ""
    pictures = table(["source", "licence", "pictures"], [[s, licence, f"{n:,}"] for s, licence, n, _ in sources])
    authors = "\n".join(f"* {source}: {', '.join(names)}." for source, _, _, names in sources if names)
    said = "Scenes composed from the pictures of these packages; none of the pictures is part of this checkpoint."
    return "\n\n".join(
        ["## Training data", said, pictures, *(["Authors, where they are known:", authors] if authors else [])]
    )


def _figures(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return ""
    try:
        groups = figures["groups"]
        distances = list(dict.fromkeys(score["name"] for group in groups.values() for score in group["frechet"]))
        rows = [_figure_row(name, group, distances) for name, group in groups.items()]
        conflict = figures.get("stage_conflict")
        lines = []
        if conflict is not None:
            identical = "bit-identical to" if conflict["identical"] else "different from"
            lines.append(
                f"Semantic ids and features of {conflict['images']:,} images ({conflict['tokens']:,} tokens) are "
                f"{identical} those before the pixel stages."
            )
        environment = ", ".join(f"{value}" for value in figures["environment"].values())
        fit = {"crop": "centre crops", "resize": "squeezed to squares"}[figures["fit"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the figures are not those of a report of `semhitok evaluate`: {error!r}") from error
    lines.append(f"Measured by `semhitok evaluate` ({environment}); {fit}; PSNR and SSIM on [0, 1].")
    head = [
        "images",
        "count",
        "PSNR (dB)",
        "SSIM",
        "perceptual",
        "Fréchet",
        "codes used",
        "perplexity",
        "probe (chance)",
    ]
    return "\n\n".join(["## Figures", table(head, rows), *_language(groups), *lines])


def _figure_row(name: str, group: Mapping[str, Any], distances: Sequence[str]) -> list[str]:
    scores, joint = group["reconstruction"], group["codebooks"]["joint"]
    probe = group["probe"].get("semantic") or group["probe"].get("image")
    found = {score["name"]: f"{score['distance']:.2f}" for score in group["frechet"]}
    return [
        name,
        f"{scores['images']:,}",
        f"{scores['psnr']:.2f}",
        f"{scores['ssim']:.3f}",
        "" if scores["perceptual"] is None else f"{scores['perceptual']:.4f}",
        *(found.get(distance, "") for distance in distances),
        f"{100 * joint['usage']:.1f} % of {joint['size']:,}",
        f"{joint['perplexity']:,.0f}",
        "" if probe is None else f"{100 * probe['accuracy']:.1f} % ({100 * probe['chance']:.1f} %)",
    ]


def _language(groups: Mapping[str, Any]) -> list[str]:
    """Zero-shot classification, for tokenizers with a text tower."""
    rows = [
        [name, kind, f"{score['classes']:,}", *(percent(score[key]) for key in ("top1", "chance_top1", "top5"))]
        for name, group in groups.items()
        for kind, score in ((group.get("language") or {}).get("zero_shot") or {}).items()
    ]
    return [table(["images", "zero-shot", "of", "top-1", "chance", "top-5"], rows)] if rows else []


def _limits(model: Tokenizer, facts: CardFacts, data: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"An image is {_bits(model) / 8:,.0f} bytes: small text, faces and fine texture are not reproduced faithfully.",
        *facts.limits,
        "Ids are exact for the same software, device and batch shape; other devices may round near-ties differently.",
    ]
    if data:
        lines.append(
            "Trained on composed scenes (cut-outs, clip-art and emoji on photographs): documents, medical, satellite and "
            "other specialised pictures were never seen."
        )
    return "## Limits\n\n" + "\n".join(f"* {line}" for line in lines)
