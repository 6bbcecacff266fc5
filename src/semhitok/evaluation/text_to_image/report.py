"""The report on generated images: figures as JSON, and one table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from semhitok.evaluation.text_to_image.judge_scores import JudgeScores
from semhitok.visualization.markdown import percent, table

REAL, RECONSTRUCTED = "real", "reconstructed"


@dataclass(frozen=True)
class GenerationScores:
    """The judge's scores of images, one for each prompt. Shares are in [0,1].

    Attributes:
        objects: share of the concepts named by the prompts that were found.
        number: share of the prompts for which every concept was found exactly as often as requested.
        place: share of the prompts with a relation for which both objects were found and the relation holds between the
            most certain ones; None without such prompts.
        images: number of prompts and images.
        relations: number of prompts with a relation.
        frechet: distance to test scenes without a prompt; None if it was not measured.
    """

    objects: float
    number: float
    place: float | None
    images: int
    relations: int
    frechet: float | None = None


@dataclass(frozen=True)
class GenerationReport:
    """Scores of generated images, and of real and reconstructed ones.

    Attributes:
        rows: scores by name: real, reconstructed, one for each guidance, shuffled.
        guidances: in the order given.
        judge: agreement of the judge with the ground truth of real and of reconstructed scenes.
        judge_fingerprint: identifies what the judge was fitted on.
        frechet_protocol: network, layer and resizing; None if no distance was measured.
        frechet_reference: number of test scenes in the reference of the distance.
        scenes_fingerprint: identifies the test scenes.
        seed, top_k, top_p: settings of generation.
    """

    rows: dict[str, GenerationScores]
    guidances: tuple[float, ...]
    judge: dict[str, JudgeScores]
    judge_fingerprint: str
    frechet_protocol: str | None
    frechet_reference: int
    scenes_fingerprint: str
    seed: int
    top_k: int
    top_p: float

    @property
    def ratios(self) -> dict[float, float | None]:
        """By guidance: objects found in generated images over those in reconstructed ones; None if there are none in these."""
        best = self.rows[RECONSTRUCTED].objects
        return {
            guidance: self.rows[guidance_name(guidance)].objects / best if best else None for guidance in self.guidances
        }

    def to_json(self) -> str:
        """All figures."""
        return json.dumps(asdict(self) | {"ratios": {f"{g:g}": ratio for g, ratio in self.ratios.items()}}, indent=1)

    def to_markdown(self) -> str:
        """One table with explanations."""
        head = ["images", "objects", "number", "place", "Fréchet", "n"]
        body = [[name, *_cells(scores)] for name, scores in self.rows.items()]
        ratios = ", ".join(
            f"{guidance_name(guidance)} {'none' if ratio is None else f'{ratio:.2f}'}"
            for guidance, ratio in self.ratios.items()
        )
        relations = self.rows[REAL].relations
        lines = [
            f"Objects found in generated images over those found in reconstructed ones: {ratios}.",
            "",
            "* objects: share of the concepts named by the prompts that the judge finds; number: share of the prompts "
            "for which every concept is found as often as requested; place: share of the prompts with a relation "
            f"({relations:,}) for which both objects are found and the relation holds.",
            "* shuffled: the same images scored on other prompts: the level reached without reading the prompt.",
            *(f"* the judge on {name} scenes: {scores.sentence()}." for name, scores in self.judge.items()),
        ]
        if self.frechet_protocol is not None:
            lines.append(
                f"* Fréchet distance to {self.frechet_reference:,} other test scenes, {self.frechet_protocol}. It falls with "
                "n; the row of real scenes shows its floor at this n."
            )
        return table(head, body) + "\n\n" + "\n".join(lines) + "\n"


def guidance_name(guidance: float) -> str:
    """4.0 -> guidance 4."""
    return f"guidance {guidance:g}"


def shuffled_name(guidance: float) -> str:
    """4.0 -> shuffled (guidance 4)."""
    return f"shuffled ({guidance_name(guidance)})"


def _cells(scores: GenerationScores) -> list[str]:
    place = "" if scores.place is None else percent(scores.place)
    frechet = "" if scores.frechet is None else f"{scores.frechet:.1f}"
    return [percent(scores.objects), percent(scores.number), place, frechet, f"{scores.images:,}"]
