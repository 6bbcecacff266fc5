"""UniTok's tables (arXiv 2502.20321, section 4.4) at ``unitok_nano`` size."""

from __future__ import annotations

from semhitok.experiments.raw_error import QuantizationErrorExperiment, QuantizerKind, Vectors
from semhitok.experiments.semhitok_tables import BITS, FRECHET, PERCEPTUAL, PSNR, SSIM, USAGE
from semhitok.experiments.table import Ablation, Metric, Row
from semhitok.experiments.unitok import UniTokExperiment, changed
from semhitok.recipes.unitok_recipe import UniTokRecipe

ZERO_SHOT = Metric("zero_shot", "zero-shot, %", 1, 100)
ZERO_SHOT_CHANCE = Metric("zero_shot_chance", "chance, %", 1, 100)
RECALL = Metric("recall_at_10", "recall at 10, %", 1, 100)
RECALL_CHANCE = Metric("recall_at_10_chance", "chance, %", 1, 100)
PROBE = Metric("probe_tokens", "probe, %", 1, 100)
PROBE_CHANCE = Metric("probe_chance", "chance, %", 1, 100)
MEANING = (RECALL, RECALL_CHANCE, ZERO_SHOT, ZERO_SHOT_CHANCE, PROBE, PROBE_CHANCE)
RECONSTRUCTION = (PSNR, SSIM, PERCEPTUAL, FRECHET, USAGE)

BUDGET = (
    "Each run: 400 steps of 64 captioned scenes, 64 px, 16 tokens, from random weights; contrastive weight 0.1, no "
    "perceptual and no adversarial loss; measured on 600 new compositions of the concepts and photographs seen in training. "
    "Recall: the caption of an image among those of all; zero-shot: the category of the largest object; probe: linear, on "
    "the mean token."
)
CONTRASTIVE_ONLY = {"l1_weight": 0.0, "l2_weight": 0.0, "contrastive_weight": 1.0}
CODES = 8


def _mcq(codebooks: int, codebook_size: int) -> UniTokExperiment:
    model = {"num_codebooks": codebooks, "codebook_size": codebook_size}
    return UniTokExperiment(f"unitok-{codebooks}x{codebook_size}", changed(model=model))


def _base() -> UniTokExperiment:
    return _mcq(CODES, 128)


def quantization() -> Ablation:
    """Multi-codebook and residual quantization in 64 channels."""
    residual = UniTokExperiment("unitok-residual", changed(model={"quantizer": "residual", "codebook_size": 128}))
    return Ablation(
        name="unitok-quantization",
        title="Multi-codebook (MCQ) against residual quantization (RQ): 16 tokens x 8 codes of 128, 64 channels",
        source="UniTok, MCQ against RQ (16 x 16 x 8, 64 channels, ImageNet)",
        rows=(
            Row({"quantizer": "RQ"}, residual, {"rFID": "3.46", "zero-shot": "58.8 %"}),
            Row({"quantizer": "MCQ"}, _base(), {"rFID": "0.55", "zero-shot": "63.7 %"}),
        ),
        metrics=(BITS, *RECONSTRUCTION, *MEANING),
        note=BUDGET,
    )


def quantization_error() -> Ablation:
    """MCQ against RQ on fixed vectors."""
    kinds: dict[str, QuantizerKind] = {"RQ": "residual", "MCQ": "multi_codebook"}
    vectors: tuple[Vectors, ...] = ("random", "image")
    rows = [
        Row(
            {"features": features, "quantizer": kind, "codes": f"{codes} x {size:,}"},
            QuantizationErrorExperiment(quantizer, features, codes, size),
        )
        for features in vectors
        for codes, size in ((8, 1024), (16, 1024))
        for kind, quantizer in kinds.items()
    ]
    return Ablation(
        name="unitok-quantization-error",
        title="Raw error of MCQ and RQ in 64 channels, as a share of the variance",
        source="UniTok finds the error of MCQ 15 to 45 times lower",
        rows=tuple(rows),
        metrics=(Metric("error", "error, %", 2, 100),),
        note="Codebooks set by k-means on 8,192 vectors, measured on 2,048 others; RQ has one codebook for all depths, MCQ "
        "one for each chunk. Image features: EfficientNet-Lite0's patches, 64 principal components at equal variance.",
    )


def sub_codebooks() -> Ablation:
    """The same total number of codes in more, smaller codebooks."""
    published = {1: ("1.50", "41.0 %"), 2: ("0.98", "43.9 %"), 4: ("0.54", "44.7 %"), 8: ("0.33", "46.1 %")}
    total = CODES * 128
    return Ablation(
        name="unitok-sub-codebooks",
        title=f"Number of sub-codebooks, {total:,} codes in all",
        source="UniTok, number of sub-codebooks (16,384 codes in all, ImageNet)",
        rows=tuple(
            Row({"codebooks": f"{count} x {total // count:,}"}, _mcq(count, total // count), _published(values))
            for count, values in published.items()
        ),
        metrics=(BITS, *RECONSTRUCTION, *MEANING),
        note=BUDGET,
    )


def supervision() -> Ablation:
    """Contrastive loss, reconstruction, or both."""
    contrastive = UniTokExperiment("unitok-contrastive", _with_losses(**CONTRASTIVE_ONLY))
    reconstruction = UniTokExperiment("unitok-reconstruction", _with_losses(contrastive_weight=0.0))
    return Ablation(
        name="unitok-supervision",
        title="Supervision",
        source="UniTok, supervision (LLaVA setting; Llama-2-7B)",
        rows=(
            Row({"supervision": "contrastive"}, contrastive, {"VQAv2": "68.95", "TextVQA": "49.89", "MME": "1373"}),
            Row(
                {"supervision": "reconstruction"},
                reconstruction,
                {"rFID": "0.82", "VQAv2": "56.33", "TextVQA": "43.65", "MME": "902"},
            ),
            Row({"supervision": "both, contrastive 0.1"}, _base()),
            Row(
                {"supervision": "both, contrastive 1"},
                UniTokExperiment("unitok-equal", _with_losses(contrastive_weight=1.0)),
                {"rFID": "0.72", "VQAv2": "69.14", "TextVQA": "49.22", "MME": "1333"},
            ),
        ),
        metrics=(*RECONSTRUCTION, *MEANING),
        note=BUDGET,
    )


def projection() -> Ablation:
    """Attention or a linear map as projection to the narrow space and back."""
    linear = UniTokExperiment("unitok-linear", changed(model={"projection": "linear", "codebook_size": 128}))
    return Ablation(
        name="unitok-projection",
        title="Projection to the 64 channels that are quantized, and back",
        source="",
        rows=(Row({"projection": "linear"}, linear), Row({"projection": "attention"}, _base())),
        metrics=(*RECONSTRUCTION, *MEANING),
        note=BUDGET,
    )


def road() -> Ablation:
    """From CLIP to a tokenizer: what each step costs in semantics."""

    def step(name: str, **model: object) -> UniTokExperiment:
        return UniTokExperiment(f"unitok-road-{name}", changed(model=model, task=CONTRASTIVE_ONLY))

    return Ablation(
        name="unitok-road",
        title="The road from CLIP to discrete tokens, contrastive loss alone",
        source="",
        rows=(
            Row(
                {"features": "CLIP: continuous, 192 channels"},
                step("clip", quantizer="none", projection="none", width=192),
            ),
            Row(
                {"features": "factorised: 64 channels by a linear map"},
                step("factorised", quantizer="none", projection="linear"),
            ),
            Row(
                {"features": "discretised: 1 code of 1,024"},
                step("discretised", projection="linear", num_codebooks=1, codebook_size=1024),
            ),
            Row({"features": "MCQ: 8 codes of 128"}, step("mcq", projection="linear", codebook_size=128)),
            Row(
                {"features": "MCQ and attention projection"},
                UniTokExperiment("unitok-contrastive", _with_losses(**CONTRASTIVE_ONLY)),
            ),
        ),
        metrics=MEANING,
        note=f"{BUDGET} The paper's figure has the drop in VQA accuracy; here the same road is walked by what the tokens say.",
    )


def _with_losses(**task: float) -> UniTokRecipe:
    return changed(model={"codebook_size": 128}, task=task)


def _published(values: tuple[str, str]) -> dict[str, str]:
    return dict(zip(("rFID", "zero-shot"), values, strict=True))
