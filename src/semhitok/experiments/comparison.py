"""The comparison of image tokenizers on equal terms: ``semhitok compare --train`` (docs/comparison.md).

Each system is one row. All have the same images, the same steps of reconstruction, backbones of one size, and the same teacher
if they use one; what supervised a system and its bits per image are columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from semhitok.experiments.compared import ComparedExperiment, ViTSystem
from semhitok.experiments.results import Result
from semhitok.experiments.semhitok import SemHiTokExperiment, ablation_recipe
from semhitok.experiments.semhitok_tables import BITS, FRECHET, PERCEPTUAL, PERPLEXITY, PSNR, SSIM, USAGE
from semhitok.experiments.table import Ablation, Metric, Row
from semhitok.quantizers import OWN_QUANTIZERS
from semhitok.recipes.vit import VIT_RECIPES, own_recipe
from semhitok.types import Stage
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
    Metric("encode_per_second", "encoded per s", 0),
    Metric("decode_per_second", "decoded per s", 0),
    Metric("weights_megabytes", "weights, MB", 1),
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
"""Systems by the name of their set."""


def chosen_systems(names: Sequence[str]) -> list[str]:
    """The systems that names of sets, systems and registered quantizers stand for, each once, in order.

    Raises:
        ValueError: an unknown name, or a registered quantizer that is called like a set or a system.
    """
    taken = [name for name in OWN_QUANTIZERS if name in SETS or name in SETS["all"]]
    if taken:
        raise ValueError(f"a quantizer of yours is called {taken[0]!r} like a set or a system: give it another name")
    known = {**SETS, **{name: (name,) for name in (*SETS["all"], *OWN_QUANTIZERS)}}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown system {unknown[0]!r}: choose sets or systems from {', '.join(known)}")
    return list(dict.fromkeys(system for name in names for system in known[name]))


def comparison(systems: Iterable[str]) -> Ablation:
    """The table of these systems, see ``chosen_systems``."""
    return Ablation(
        name="comparison",
        title="Image tokenizers on one backbone, one data set and one budget",
        source="the systems' papers, rFID at 256 px; not comparable with these figures or with each other",
        rows=tuple(_row(system) for system in systems),
        metrics=METRICS,
        note="Each run: 1,500 steps of 16 images (L1 and the quantizer's own losses), 64 px, 64 tokens, ViT of 2 + 3 layers of "
        "128 channels, no perceptual and no adversarial loss; systems trained in stages take 300 steps of 128 images for their "
        "semantic part besides. 768 bits per image, where a row does not say otherwise. Teacher: EfficientNet-Lite0. Probe: "
        "linear, for the category of the largest object, concepts unseen; neighbours: share of the 5 nearest images of other "
        "concepts with the same category; both on means over tokens. Speed: one batch of 32 images on the machine of the run.",
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
    others: dict[str, Callable[[], ComparedExperiment]] = {
        "dualvitok": _dualvitok,
        "semhitok": lambda: _semhitok("semhitok", ("semantic", "pixel")),
        "semhitok-joint": lambda: _semhitok("semhitok-joint", ("joint",)),
    }
    if system in others:
        experiment, supervision = (
            others[system](),
            "teacher, joint, also as input" if system == "semhitok-joint" else STAGED,
        )
    else:
        recipe = VIT_RECIPES[system]() if system in VIT_RECIPES else own_recipe(system)
        experiment, supervision = ComparedExperiment(system, ViTSystem(recipe)), SUPERVISION.get(system, NONE)
    paper = {"rFID": PUBLISHED[system]} if system in PUBLISHED else {}
    return Row({"system": system, "supervision": supervision}, experiment, paper)


def _semhitok(name: str, stages: tuple[Stage, ...], **model: object) -> ComparedExperiment:
    """SemHiTok at its ablation size with 4,096 ids: 512 semantic codes of 8 pixel codes each."""
    recipe = ablation_recipe()
    fields = {"semantic_codebook_size": 512, "subcodebook_size": 8, **model}
    recipe = replace(recipe, model=recipe.model | fields)
    return ComparedExperiment(name, SemHiTokExperiment(name, recipe, stages=stages))


def _dualvitok() -> ComparedExperiment:
    """DualViTok: independent semantic and pixel VQ of 64 codes each, whose codes the decoder joins."""
    return _semhitok(
        "dualvitok",
        ("semantic", "pixel"),
        semantic_codebook_size=64,
        subcodebook_size=64,
        pixel_codebook="shared",
    )
