"""The evaluation report: figures as JSON, the same figures as Markdown, and the pictures that go with them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from semhitok.data.reading import BadImage
from semhitok.evaluation.semantics.language import LanguageScores, language_protocol, language_section
from semhitok.evaluation.tokenizer.stages import StageConflict
from semhitok.metrics.codebook import BookScores, CodebookScores
from semhitok.metrics.frechet import FrechetScore
from semhitok.metrics.probe import ProbeResult
from semhitok.metrics.rate import TOKENIZER, RatePoint
from semhitok.metrics.reconstruction import ReconstructionScores
from semhitok.storage.atomic import write_text
from semhitok.visualization.examples import Examples, draw_examples
from semhitok.visualization.markdown import percent, table
from semhitok.visualization.rate_plot import draw_rate_plot


@dataclass(frozen=True)
class GroupReport:
    """Everything measured on one source of images; sources are never averaged with each other.

    Attributes:
        fingerprint: identifies the source.
        images_in_source: images in the source; ``reconstruction.images`` says how many of them were measured.
        reconstruction: at the size of the images given to the tokenizer.
        reconstruction_native: at the size that the tokenizer predicts, if it differs (384 px with patch 14).
        codebooks: usage and perplexity.
        frechet: distances, each with its protocol.
        probe: category probes by kind of features; empty without labelled images.
        language: zero-shot classification and retrieval; None without a text tower, labels and captions.
        rate: curves by label, over ``rate_images`` images.
        bad: unreadable images, which are left out.
        examples: a few images for the picture; not part of the JSON.
    """

    fingerprint: str
    images_in_source: int
    reconstruction: ReconstructionScores
    reconstruction_native: ReconstructionScores | None
    codebooks: CodebookScores
    frechet: list[FrechetScore]
    probe: dict[str, ProbeResult]
    rate: dict[str, list[RatePoint]]
    rate_images: int
    bad: list[BadImage]
    language: LanguageScores | None = None
    examples: Examples | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class EvaluationReport:
    """All groups of one tokenizer.

    Attributes:
        name: name of the tokenizer.
        image_size: side in pixels of its square input images.
        fit: how images were made square, ``crop`` or ``resize``.
        tokens: per image.
        vocab_size: number of joint ids, or of codes in one codebook where a token has several.
        bits: per image, tokens * codes per token * log2(vocab_size).
        groups: by the name of the source.
        codes_per_token: C.
        stage_conflict: comparison with an earlier stage, if one was given.
        environment: date, versions and device, to reproduce the run.
    """

    name: str
    image_size: int
    fit: str
    tokens: int
    vocab_size: int
    bits: float
    groups: dict[str, GroupReport]
    codes_per_token: int = 1
    stage_conflict: StageConflict | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def save(self, directory: str | Path) -> dict[str, Path]:
        """Write ``report.json``, ``report.md``, ``reconstructions.png`` and a rate plot per group; paths by kind."""
        directory = Path(directory)
        paths = {"json": directory / "report.json", "markdown": directory / "report.md"}
        write_text(paths["json"], self.to_json())
        write_text(paths["markdown"], self.to_markdown())
        examples = {name: group.examples for name, group in self.groups.items() if group.examples is not None}
        if examples:
            paths["picture"] = directory / "reconstructions.png"
            title = f"{self.name}: originals and what came back from their tokens"
            draw_examples(examples, title=title, subtitle=f"{self.summary()}. PSNR below each.").save(paths["picture"])
        for name, group in self.groups.items():
            if group.rate:
                path = directory / f"rate_{''.join(c if c.isalnum() else '_' for c in name)}.png"
                subtitle = f"{group.rate_images} images of {self.image_size} x {self.image_size} pixels"
                subtitle += "; codecs without headers and tables"
                draw_rate_plot(group.rate, title=f"PSNR against bits: {name}", subtitle=subtitle).save(path)
                paths[f"rate {name}"] = path
        return paths

    def summary(self) -> str:
        """Size, tokens and bits in one line."""
        codes = f" of {self.codes_per_token} codes, each" if self.codes_per_token > 1 else ","
        return (
            f"{self.image_size} x {self.image_size} pixels, {self.tokens:,} tokens{codes} vocabulary {self.vocab_size:,}: "
            f"{self.bits:,.0f} bits = {self.bits / 8:,.0f} bytes per image"
        )

    def to_json(self) -> str:
        """All figures; unavailable ones are null."""
        content = asdict(self)
        for group in content["groups"].values():
            del group["examples"]
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """All figures as tables, one column per group, with the protocols below."""
        parts = [f"# Evaluation of {self.name}", f"{self.summary()}."]
        parts += ["## Reconstruction", self._reconstruction_table(), "## Codebooks", self._codebook_table()]
        if any(group.probe for group in self.groups.values()):
            parts += ["## Category probe", self._probe_table()]
        if self._language():
            parts += ["## Images and texts", language_section(self._language())]
        if any(group.rate for group in self.groups.values()):
            parts += ["## Rate", self._rate_table()]
        if self.stage_conflict is not None:
            parts += ["## Stages", self.stage_conflict.sentence()]
        parts += ["## How it was measured", "\n".join(f"* {line}" for line in self._protocol())]
        return "\n\n".join(parts) + "\n"

    def _reconstruction_table(self) -> str:
        rows: list[tuple[str, Callable[[GroupReport], str]]] = [
            ("images", lambda group: f"{group.reconstruction.images:,}"),
            ("unreadable images left out", lambda group: f"{len(group.bad):,}"),
            ("PSNR (dB)", lambda group: _number(group.reconstruction.psnr, 2)),
            ("SSIM", lambda group: _number(group.reconstruction.ssim, 3)),
        ]
        if any(group.reconstruction.perceptual is not None for group in self.groups.values()):
            rows.append(("perceptual distance", lambda group: _number(group.reconstruction.perceptual, 4)))
        for name in _unique(score.name for group in self.groups.values() for score in group.frechet):
            rows.append((name, lambda group, name=name: _distance(group, name)))
        if any(group.reconstruction_native is not None for group in self.groups.values()):
            rows.append(("PSNR (dB) at the predicted size", lambda group: _native_psnr(group)))
        return table(["", *self.groups], [[label, *map(figure, self.groups.values())] for label, figure in rows])

    def _codebook_table(self) -> str:
        rows = []
        for name, group in self.groups.items():
            books = group.codebooks
            for label, book in (("semantic", books.semantic), ("pixel", books.pixel), ("joint", books.joint)):
                if book is not None and not books.by_codebook:
                    rows.append([name, label, *_book(book)])
            if books.worst is not None:
                rows.append([name, f"mean of {len(books.by_codebook)} codebooks", *_book(books.joint)])
                rows.append([name, f"worst: codebook {books.worst + 1}", *_book(books.by_codebook[books.worst])])
        counted = table(["images", "codes", "size", "tokens counted", "used", "perplexity"], rows)
        notes = [
            f"{name}: a semantic code has {books.pixel_given_semantic:.1f} of {books.pixel.size} sub-codes in effect "
            f"(perplexity of the pixel code given the semantic code); {books.underused_subcodebooks:,} of "
            f"{books.semantic.size:,} sub-codebooks are under-used (fewer than half of their codes hit)."
            for name, books in ((name, group.codebooks) for name, group in self.groups.items())
            if books.semantic is not None and books.pixel is not None and books.pixel_given_semantic is not None
        ]
        return "\n\n".join([counted, *notes])

    def _probe_table(self) -> str:
        rows = [
            [name, features]
            + [percent(share) for share in (result.accuracy, result.chance, result.balanced_accuracy)]
            + [f"{result.train_images:,}", f"{result.test_images:,}"]
            for name, group in self.groups.items()
            for features, result in group.probe.items()
        ]
        head = ["images", "features", "accuracy", "chance", "mean over categories", "trained on", "tested on"]
        return table(head, rows)

    def _language(self) -> dict[str, LanguageScores]:
        return {name: group.language for name, group in self.groups.items() if group.language is not None}

    def _rate_table(self) -> str:
        """The tokenizer and two points of each curve: the nearest in bits, and the cheapest of at least its PSNR."""
        rows = []
        for name, group in self.groups.items():
            (own,) = group.rate.get(TOKENIZER, [None])
            if own is None:
                continue
            rows.append([name, TOKENIZER, _point(own), ""])
            for label, points in group.rate.items():
                if label != TOKENIZER:
                    nearest = min(points, key=lambda point, own=own: abs(math.log(point.bits / own.bits)))
                    as_good = next((_point(point) for point in points if point.psnr >= own.psnr), "none")
                    rows.append([name, label, _point(nearest), as_good])
        return table(["images", "method", "nearest in bits", "as good as the tokenizer, or better"], rows)

    def _protocol(self) -> list[str]:
        fitted = {"crop": "shorter side resized, centre cropped", "resize": "squeezed to the square"}[self.fit]
        lines = [
            f"Images: {fitted}, {self.image_size} x {self.image_size} pixels; reconstructions are compared with "
            "these images.",
            "PSNR and SSIM: images clamped to [0, 1], data range 1.0, mean over images of the image's own figure; SSIM "
            "as in torchmetrics (Gaussian window of 11 x 11 pixels, sigma 1.5, mirrored border).",
        ]
        scores = [score for group in self.groups.values() for score in group.frechet]
        note = "figures of different numbers of images are not comparable"
        lines += _unique(f"{score.name}: {score.protocol}; {note}." for score in scores)
        if any(group.probe for group in self.groups.values()):
            whole = any("image" in group.probe for group in self.groups.values())
            features = "features averaged over the image's tokens"
            features += ", or (image) the embedding of the whole image" if whole else ""
            lines.append(
                f"Probe: multinomial logistic regression on {features}; the label is the category of the largest object."
            )
        if self._language():
            lines += language_protocol()
        if any(group.rate for group in self.groups.values()):
            lines.append(
                f"Rate: the tokenizer spends tokens x {'codes per token x ' if self.codes_per_token > 1 else ''}"
                "log2(vocabulary) bits; codecs are charged for their payload only, "
                "without headers and tables; down-sampled images for 24 bits a pixel. All curves are in the JSON."
            )
        return lines + [f"{key}: {value}" for key, value in self.environment.items()]


def _point(point: RatePoint) -> str:
    return f"{point.bits:,.0f} bits, {point.psnr:.2f} dB ({point.setting})"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _distance(group: GroupReport, name: str) -> str:
    found = [score for score in group.frechet if score.name == name]
    return f"{found[0].distance:.2f} ({found[0].images:,} images)" if found else ""


def _native_psnr(group: GroupReport) -> str:
    native = group.reconstruction_native
    return "" if native is None else f"{native.psnr:.2f} ({native.width} x {native.height})"


def _book(book: BookScores) -> list[str]:
    return [f"{book.size:,}", f"{book.tokens:,}", percent(book.usage), f"{book.perplexity:,.0f}"]


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
