"""The model card of a checkpoint to share: what it is, how it was trained, on what, how good it is, where it ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from semhitok.evaluation.rate import tokenizer_bits
from semhitok.recipes.recipe import STAGES
from semhitok.tokenizers import SemHiTokModel

NOT_STATED = "not stated"
BUILT_IN_BACKBONE = "efficientnet_lite"


def model_card(
    name: str,
    model: SemHiTokModel,
    *,
    licence: str | None,
    figures: Mapping[str, Any] | None,
    data: Sequence[Mapping[str, Any]],
) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        name: of the checkpoint.
        model: what is described; its configuration knows stages and provenance.
        licence: of the weights, an SPDX name.
        figures: the content of a ``report.json`` of ``semhitok evaluate``.
        data: the contents of the ``dataset.json`` of each training set of scenes.

    Raises:
        ValueError: figures or data are of another form.
    """
    front = ["---", *([f"license: {licence.lower()}"] if licence else []), "library_name: semhitok"]
    front += ["tags:", "- image-tokenizer", "- vector-quantization", "---"]
    sections = [
        "\n".join(front),
        f"# {name}",
        f"A SemHiTok image tokenizer (arXiv 2503.06764): {_in_short(model)}.",
        _use(name, model),
        _facts(model, licence),
        _training(model),
        _data(data),
        _figures(figures),
        _limits(model, data),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def read_figures(path: Path) -> dict[str, Any]:
    """The report that ``semhitok evaluate`` wrote.

    Raises:
        ValueError: it is something else.
    """
    return _read(path, "groups", "a report.json of `semhitok evaluate`")


def read_data(path: Path) -> dict[str, Any]:
    """What a set of scenes was made from: its folder, or the ``dataset.json`` in it.

    Raises:
        ValueError: it is something else.
    """
    return _read(
        path / "dataset.json" if path.is_dir() else path, "sources", "a dataset.json of `semhitok data scenes`"
    )


def data_sources(data: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, int, list[str]]]:
    """Source, licence, number of pictures and authors, of all sets together."""
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
    """Names are credited; the e-mail addresses that some files give beside them are not passed on."""
    return re.sub(r"\s*[(<\[]?\S+@\S+", "", author).strip(" ,;")


def _in_short(model: SemHiTokModel) -> str:
    config = model.config
    bits = tokenizer_bits(model.num_tokens, model.vocab_size)
    return (
        f"{config.image_size} x {config.image_size} pixels become {model.num_tokens:,} tokens out of "
        f"{model.vocab_size:,} ({bits:,.0f} bits, {bits / 8:,.0f} bytes), and an image again"
    )


def _use(name: str, model: SemHiTokModel) -> str:
    size = model.config.image_size
    return f"""## Use

```python
from semhitok import SemHiTokImageProcessor, SemHiTokModel

model = SemHiTokModel.from_pretrained("{name}").eval()  # this folder, or its id on a hub
images = SemHiTokImageProcessor.from_pretrained("{name}")(["photograph.jpg"])["pixel_values"]  # (1, 3, {size}, {size})
ids = model.encode(images).ids  # (1, {model.num_tokens}), each below {model.vocab_size}
copies = model.decode(ids)  # (1, 3, {size}, {size}) in [-1, 1]
```"""


def _facts(model: SemHiTokModel, licence: str | None) -> str:
    config = model.config
    parts = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()}
    rows = [
        ["semantic codes", f"{config.semantic_codebook_size:,} of {config.semantic_dim} channels"],
        ["pixel codes under each", f"{config.subcodebook_size:,} of {config.pixel_dim} channels"],
        ["patch", f"{config.patch_size} x {config.patch_size} pixels"],
        ["teacher", _teacher(model)],
        [
            "parameters",
            f"{sum(parts.values()):,}: " + ", ".join(f"{p.replace('_', ' ')} {n:,}" for p, n in parts.items()),
        ],
        ["stored as", "float32; pixel encoder and decoder as bfloat16; loads as float32"],
        ["licence of the weights", licence or NOT_STATED],
    ]
    return "## What it is\n\n" + _table(["", ""], rows)


def _teacher(model: SemHiTokModel) -> str:
    teacher = model.config.teacher_config
    kind = teacher.backbone_config.model_type
    if kind == BUILT_IN_BACKBONE:
        kind = "EfficientNet-Lite0 (Tan and Le, 2019; trained on ImageNet; Apache-2.0), its stride-16 grid"
    return f"{kind}, fed {teacher.image_size} px, frozen"


def _training(model: SemHiTokModel) -> str:
    provenance = model.config.provenance
    rows = []
    for stage in STAGES:
        if stage in model.config.stages:
            entry = provenance.get(stage, {})
            steps, samples = (f"{entry[key]:,}" if key in entry else NOT_STATED for key in ("steps", "samples"))
            said = [str(entry.get(key, NOT_STATED)) for key in ("recipe", "data", "date")]
            rows.append([stage, said[0], said[1], steps, samples, entry.get("perceptual", "none"), said[2]])
    if not rows:
        return "## How it was trained\n\nNot at all: the weights are random."
    head = ["stage", "recipe", "data", "steps", "images seen", "perceptual loss", "date"]
    return "## How it was trained\n\n" + _table(head, rows)


def _data(data: Sequence[Mapping[str, Any]]) -> str:
    sources = data_sources(data)
    if not sources:
        return ""
    table = _table(["source", "licence", "pictures"], [[s, licence, f"{n:,}"] for s, licence, n, _ in sources])
    authors = "\n".join(f"* {source}: {', '.join(names)}." for source, _, _, names in sources if names)
    said = "Scenes composed from the pictures of these packages; none of the pictures is part of this checkpoint."
    return "\n\n".join(
        ["## Training data", said, table, *(["Authors, where they are known:", authors] if authors else [])]
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
    return "\n\n".join(["## Figures", _table(head, rows), *lines])


def _figure_row(name: str, group: Mapping[str, Any], distances: Sequence[str]) -> list[str]:
    scores, joint = group["reconstruction"], group["codebooks"]["joint"]
    probe = group["probe"].get("semantic")
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


def _limits(model: SemHiTokModel, data: Sequence[Mapping[str, Any]]) -> str:
    bits = tokenizer_bits(model.num_tokens, model.vocab_size)
    lines = [
        f"An image is {bits / 8:,.0f} bytes: small text, faces and fine texture do not come back as they were.",
        f"Made for {model.config.image_size} x {model.config.image_size} pixels; other sizes work but were not trained.",
        "Ids are exact for the same software, device and batch shape; other devices may round a close choice otherwise.",
    ]
    if data:
        lines.append(
            "Trained on composed scenes (cut-outs, clip-art and emoji on photographs): documents, medical, satellite and "
            "other specialised pictures were never seen."
        )
    if model.config.teacher_config.backbone_config.model_type == BUILT_IN_BACKBONE:
        lines.append(
            "The teacher learned ImageNet's classes and no language: semantic codes know less of the world than those of "
            "a text-aligned teacher such as the paper's SigLIP."
        )
    return "## Limits\n\n" + "\n".join(f"* {line}" for line in lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])
