"""The comparison of image tokenizers on equal terms: ``semhitok compare --train`` (docs/comparison.md).

Each system is one row. All have the same images, the same steps of reconstruction, backbones of one size, and the same teacher
if they use one; what supervised a system and its bits per image are columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from semhitok.experiments.compared import ComparedExperiment, ViTSystem
from semhitok.experiments.results import Result
from semhitok.experiments.semhitok_tables import BITS, FRECHET, PERCEPTUAL, PERPLEXITY, PSNR, SSIM, USAGE
from semhitok.experiments.sghc import SGHC_ROWS, semhitok_system, sghc_experiment
from semhitok.experiments.table import Ablation, Metric, Row
from semhitok.quantizers import OWN_QUANTIZERS
from semhitok.recipes.vit import VIT_RECIPES, own_recipe
from semhitok.visualization.pareto_plot import ParetoPoint, draw_pareto_plot

METRICS = (
    Metric("codes_per_token", "codes per token", 0),
    Metric("codebook_size", "out of", 0),
    Metric("tokens", "tokens", 0),
    BITS,
    Metric("parameters", "parameters, M", 2, 1e-6),
    PSNR,
    SSIM,
    PERCEPTUAL,
    FRECHET,
    USAGE,
    PERPLEXITY,
    Metric("probe_codes", "probe of codes, %", 1, 100),
    Metric("probe_predicted", "probe of predicted features, %", 1, 100),
    Metric("probe_chance", "chance, %", 1, 100),
    Metric("neighbours_codes", "neighbours by codes, %", 1, 100),
    Metric("neighbours_predicted", "neighbours by predicted features, %", 1, 100),
    Metric("neighbours_chance", "chance, %", 1, 100),
    Metric("answers_category", "answers: category, %", 1, 100),
    Metric("answers_category_blind", "blind, %", 1, 100),
    Metric("answers_captions", "captions, F1", 1, 100),
    Metric("drawing_perplexity", "perplexity of a code", 1),
    Metric("drawing_predicted_bits", "predicted bits", 0),
    Metric("drawing_frechet", "drawing: Fréchet", 1),
    Metric("drawing_frechet_guided", "guided", 1),
    Metric("encode_per_second", "encoded per s", 0),
    Metric("decode_per_second", "decoded per s", 0),
    Metric("weights_megabytes", "weights, MB", 1),
)

_KEPT = ("bits", "psnr", "ssim", "perceptual", "frechet", "usage", "perplexity", "answers_category", "answers_captions")
_KEPT += ("drawing_perplexity", "drawing_predicted_bits", "drawing_frechet", "drawing_frechet_guided")
SGHC_METRICS = (
    *(metric for metric in METRICS if metric.key in _KEPT),
    Metric("drawing-semantic_perplexity", "semantic input: perplexity of a code", 1),
    Metric("drawing-semantic_predicted_bits", "predicted bits", 0),
    Metric("drawing-semantic_frechet", "drawing: Fréchet", 1),
    Metric("drawing-semantic_frechet_guided", "guided", 1),
)
LANGUAGE_NOTE = (
    "Language model: 4 layers of width 128 from random weights, one MLP as adapter, on scenes-100. Answers: 130 steps of 24 "
    "rows that put tokens among the words of captions, then 230 steps of 8 rows of captions and questions, images as input "
    "alone; blind: the most frequent answer. Drawing: 400 steps of 8 rows of captions and their images; perplexity of a code "
    "given the caption and the codes before it, and the bits of an image under this prediction; Fréchet distance (Lite2) "
    "without guidance and at 3."
)

NONE, JOINT, STAGED = "none", "teacher, joint", "teacher, staged, also as input"
SUPERVISION = {
    **{
        name: NONE
        for name in ("vqgan", "simvq", "rqvae", "ibq", "fsq", "lfq", "bsq", "wetok", "rqvae-2048bit", "wetok-2048bit")
    },
    "vqgan-lc": "codebook from the teacher",
    "fqgan": "teacher, joint, one factor",
    **{name: JOINT for name in ("vila-u", "unitok", "vila-u-2048bit", "unitok-2048bit")},
    "sde": "teacher, joint, also as input",
    "tokenflow": "teacher, joint, also as input",
    "toklip": "teacher, afterwards, on frozen codes",
}
"""What each ViT system is distilled from or initialised with."""

PUBLISHED = {
    "vqgan": "2.19 (LlamaGen)",
    "ibq": "1.00 (262k codes)",
    "fqgan": "0.94",
    "tokenflow": "1.37 (multi-scale)",
    "dualvitok": "1.37",
    "unitok": "0.39 (contrastive)",
    "semhitok": "1.16",
}
"""rFID at 256 px as published; protocols, sizes and data differ from one paper to the next."""

UNIFIED = (
    *("vila-u", "unitok", "vila-u-2048bit", "unitok-2048bit", "sde", "tokenflow", "toklip"),
    *("dualvitok", "semhitok", "semhitok-joint"),
)
SETS: dict[str, tuple[str, ...]] = {
    "reconstruction": tuple(name for name in VIT_RECIPES if name not in UNIFIED),
    "unified": UNIFIED,
}
SETS["all"] = (*SETS["reconstruction"], *SETS["unified"])
SETS["sghc"] = tuple(SGHC_ROWS)
"""Systems by the name of their set."""


def chosen_systems(names: Sequence[str]) -> list[str]:
    """The systems that names of sets, systems and registered quantizers stand for, each once, in order.

    Raises:
        ValueError: an unknown name, or a registered quantizer that is called like a set or a system.
    """
    systems = tuple(dict.fromkeys(system for each in SETS.values() for system in each))
    taken = [name for name in OWN_QUANTIZERS if name in SETS or name in systems]
    if taken:
        raise ValueError(f"a quantizer of yours is called {taken[0]!r} like a set or a system: give it another name")
    known = {**SETS, **{name: (name,) for name in (*systems, *OWN_QUANTIZERS)}}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown system {unknown[0]!r}: choose sets or systems from {', '.join(known)}")
    return list(dict.fromkeys(system for name in names for system in known[name]))


def comparison(systems: Sequence[str]) -> Ablation:
    """The table of these systems, see ``chosen_systems``; that of SGHC's controls, if there are only such."""
    if set(systems) <= set(SETS["sghc"]) and not set(systems) <= set(SETS["all"]):
        return _sghc(systems)
    return Ablation(
        name="comparison",
        title="Image tokenizers on one backbone, one data set and one budget",
        source="the systems' papers, rFID at 256 px; not comparable with these figures or with each other",
        rows=tuple(_row(system) for system in systems),
        metrics=METRICS,
        note=f"Each run: 1,500 steps of 16 images (L1 and the quantizer's own losses), 64 px, 64 tokens, ViT of 2 + 3 layers of "
        "128 channels, no perceptual and no adversarial loss; systems trained in stages take 300 steps of 128 images for their "
        "semantic part besides. 768 bits per image, where a row does not say otherwise. Teacher: EfficientNet-Lite0. Probe: "
        "linear, for the category of the largest object, concepts unseen; neighbours: share of the 5 nearest images of other "
        "concepts with the same category; both on means over tokens. Speed: one batch of 32 images on the machine of the run. "
        f"{LANGUAGE_NOTE}",
    )


def _sghc(systems: Sequence[str]) -> Ablation:
    return Ablation(
        name="sghc",
        title="SGHC: what sub-codebooks by meaning are worth",
        source="",
        rows=tuple(
            Row({"system": system, "sub-codebook": SGHC_ROWS[system]}, sghc_experiment(system)) for system in systems
        ),
        metrics=SGHC_METRICS,
        note="All rows have 512 semantic codes, m = 8 pixel codes in a sub-codebook and 768 bits per image; groups hold equal "
        "numbers of semantic codes. Budget as in the comparison (1,500 steps of 16 images after 300 steps of 128 for the semantic "
        "codes, which are the same in all rows of a seed), 4 times the steps of the pixel stage where a row says so. The last "
        f"columns have semantic codes alone as input of the language model. {LANGUAGE_NOTE}",
    )


def save_pareto_plot(path: Path, table: Ablation, results: Mapping[str, Sequence[Result]]) -> bool:
    """Draw PSNR against understanding with fronts at equal bits; False if no system has both figures yet."""
    points = []
    for row in table.rows:
        found = [each.metrics for each in results.get(row.experiment.name, ()) if "understanding" in each.metrics]
        if found:
            means = {key: sum(each[key] for each in found) / len(found) for key in ("understanding", "psnr", "bits")}
            points.append(
                ParetoPoint(row.label["system"], 100 * means["understanding"], means["psnr"], round(means["bits"]))
            )
    if not points:
        return False
    subtitle = "Best linear probe of quantized features against PSNR; the line joins systems that none of equal bits beats in both."
    picture = draw_pareto_plot(points, title=table.title, subtitle=subtitle, across="category probe, %", up="PSNR, dB")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return True


def _row(system: str) -> Row:
    supervision = SUPERVISION.get(system, NONE)
    if system in SGHC_ROWS:
        experiment, supervision = sghc_experiment(system), STAGED
    elif system == "semhitok-joint":
        experiment, supervision = semhitok_system(system, ("joint",)), "teacher, joint, also as input"
    elif system == "dualvitok":
        experiment, supervision = _dualvitok(), STAGED
    else:
        recipe = VIT_RECIPES[system]() if system in VIT_RECIPES else own_recipe(system)
        experiment = ComparedExperiment(system, ViTSystem(recipe))
    paper = {"rFID": PUBLISHED[system]} if system in PUBLISHED else {}
    return Row({"system": system, "supervision": supervision}, experiment, paper)


def _dualvitok() -> ComparedExperiment:
    """DualViTok: independent semantic and pixel VQ of 64 codes each, whose codes the decoder joins."""
    model = {"semantic_codebook_size": 64, "subcodebook_size": 64, "pixel_codebook": "shared"}
    return semhitok_system("dualvitok", ("semantic", "pixel"), model)
