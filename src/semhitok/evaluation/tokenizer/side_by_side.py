"""Checkpoints side by side on the same images, without training: figures, bits, speed and a picture.

Shapes: n example images, 3 channels, H x W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from semhitok.data.reading import SizedImages
from semhitok.data.sample import ImageSource
from semhitok.data.transforms import to_float
from semhitok.evaluation.tokenizer.cost import Cost, measure_cost
from semhitok.evaluation.tokenizer.evaluate import Progress, evaluate
from semhitok.evaluation.tokenizer.report import EvaluationReport
from semhitok.metrics.reconstruction import PerceptualDistance
from semhitok.storage.atomic import write_text
from semhitok.tokenizers.protocol import Tokenizer
from semhitok.types import FitMode
from semhitok.visualization.markdown import table
from semhitok.visualization.side_by_side import draw_side_by_side

GROUP = "images"


@dataclass(frozen=True)
class SideBySide:
    """Reports and costs by the name of the checkpoint, all on the same images.

    Attributes:
        reports: of ``evaluate``.
        costs: of one batch.
    """

    reports: dict[str, EvaluationReport]
    costs: dict[str, Cost]

    def to_markdown(self) -> str:
        """One row per checkpoint."""
        heading = [
            "checkpoint",
            "codes",
            "tokens",
            "bits",
            "PSNR, dB",
            "SSIM",
            "perceptual",
            "encoded per s",
            "decoded per s",
        ]
        rows = []
        for name, report in self.reports.items():
            scores, cost = report.groups[GROUP].reconstruction, self.costs[name]
            several = f"{report.codes_per_token} x " if report.codes_per_token > 1 else ""
            rows.append(
                [
                    name,
                    f"{several}{report.vocab_size:,}",
                    f"{report.tokens:,}",
                    f"{report.bits:,.0f}",
                    f"{scores.psnr:.2f}",
                    f"{scores.ssim:.3f}",
                    "–" if scores.perceptual is None else f"{scores.perceptual:.3f}",
                    f"{cost.encode_per_second:,.0f}",
                    f"{cost.decode_per_second:,.0f}",
                ]
            )
        images = next(iter(self.reports.values())).groups[GROUP].reconstruction.images
        return "\n".join([table(heading, rows), "", f"{images} images, each checkpoint on all of them.", ""])

    def save(self, directory: Path) -> dict[str, Path]:
        """Write ``comparison.json``, ``comparison.md`` and ``comparison.png``; paths by kind."""
        paths = {"json": directory / "comparison.json", "markdown": directory / "comparison.md"}
        content = {
            name: {**json.loads(report.to_json()), "cost": asdict(self.costs[name])}
            for name, report in self.reports.items()
        }
        write_text(paths["json"], json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        write_text(paths["markdown"], self.to_markdown())
        paths["picture"] = directory / "comparison.png"
        originals, copies = self._examples()
        bits = {name: f"{report.bits:,.0f} bits" for name, report in self.reports.items()}
        title = "Tokenizers side by side"
        draw_side_by_side(originals, copies, title=title, notes=bits).save(paths["picture"])
        return paths

    def _examples(self) -> tuple[Tensor, dict[str, Tensor]]:
        found = {name: report.groups[GROUP].examples for name, report in self.reports.items()}
        shown = {name: each for name, each in found.items() if each is not None}
        originals = next(iter(shown.values())).originals
        return originals, {name: each.reconstructions for name, each in shown.items()}


def compare_checkpoints(
    models: Mapping[str, Tokenizer],
    source: ImageSource,
    *,
    fit: FitMode = "crop",
    batch_size: int = 32,
    limit: int | None = None,
    perceptual: PerceptualDistance | None = None,
    progress: Progress | None = None,
) -> SideBySide:
    """Measure several tokenizers on the same images.

    Args:
        models: by name, at least one, all for images of one size, on one device.
        source, fit, batch_size, limit, perceptual, progress: see ``evaluate``.

    Raises:
        ValueError: the tokenizers take images of different sizes, or as for ``evaluate``.
    """
    sizes = {name: model.config.image_size for name, model in models.items()}
    (first, wanted), *others = sizes.items()
    for name, size in others:
        if size != wanted:
            raise ValueError(
                f"{first} takes images of {wanted} px and {name} of {size} px: their figures cannot be compared, choose "
                "checkpoints of one size"
            )
    reports, costs = {}, {}
    for name, model in models.items():
        reports[name] = evaluate(
            model,
            {GROUP: source},
            name=name,
            batch_size=batch_size,
            limit=limit,
            fit=fit,
            perceptual=perceptual,
            rate_images=0,
            progress=None if progress is None else _named(progress, name),
        )
        batch = next(
            iter(SizedImages(source, wanted, fit=fit, limit=batch_size, batch_size=batch_size, max_bad_share=1))
        )
        costs[name] = measure_cost(model, to_float(batch.images.to(model.device)).to(model.dtype))
    return SideBySide(reports, costs)


def _named(progress: Progress, name: str) -> Progress:
    return lambda group, done, total: progress(f"{name}: {group}", done, total)
