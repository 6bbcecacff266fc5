"""The paper's tables (arXiv 2503.06764, section 4.4) at ablation size, with rows that it does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from semhitok.experiments.semhitok import SemHiTokExperiment, ablation_recipe, changed
from semhitok.experiments.sub_codebook_error import SubCodebookErrorExperiment
from semhitok.experiments.table import Ablation, Metric, Row
from semhitok.quantizers.grouping import PixelCodebookKind
from semhitok.recipes.recipe import EnhancedDecoder
from semhitok.types import Stage

PSNR, SSIM = Metric("psnr", "PSNR, dB"), Metric("ssim", "SSIM", 3)
PERCEPTUAL, FRECHET = Metric("perceptual", "perceptual", 3), Metric("frechet", "Fréchet (Lite2)", 1)
USAGE, PERPLEXITY = Metric("usage", "usage, %", 1, 100), Metric("perplexity", "perplexity", 0)
BITS = Metric("bits", "bits", 0)
COSINE = Metric("semantic_cosine", "cosine to teacher", 3)
PROBE, CHANCE = Metric("probe_semantic", "probe, %", 1, 100), Metric("probe_chance", "chance, %", 1, 100)
RECONSTRUCTION = (BITS, PSNR, SSIM, PERCEPTUAL, FRECHET, USAGE)

BUDGET = (
    "Each run: stage 1 with 300 steps of 128 images, then the pixel stage with 1,500 steps of 16 images (L1 and codebook "
    "losses unless said otherwise), 64 px, 64 tokens, K = 1,024; measured on 600 held-out scenes."
)


def _pixel(m: int, concat: str = "dim") -> SemHiTokExperiment:
    return SemHiTokExperiment(f"semhitok-m{m}-{concat}", changed(model={"subcodebook_size": m, "concat": concat}))


def _semantic(**model: object) -> SemHiTokExperiment:
    name = "-".join(str(value) for value in model.values())
    return SemHiTokExperiment(f"semantic-{name}", changed(model=model), stages=("semantic",), probe=True)


def concatenation() -> Ablation:
    """Table 9: how the codes are joined, and the size of the sub-codebooks."""
    published = {
        ("none", 12): ("1.99", "95.4 %"),
        ("length", 12): ("1.45", "94.1 %"),
        ("dim", 8): ("1.42", "96.4 %"),
        ("dim", 12): ("1.26", "93.7 %"),
        ("dim", 16): ("1.19", "79.3 %"),
    }
    rows = [("none", 12), ("length", 12), ("dim", 4), ("dim", 8), ("dim", 12), ("dim", 16)]
    return Ablation(
        name="concatenation",
        title="How the decoder receives the two codes, and the size m of the sub-codebooks",
        source="SemHiTok, Table 9 (ImageNet-1K)",
        rows=tuple(
            Row(
                {"concat": concat, "m": str(m)},
                _pixel(m, concat),
                dict(zip(("rFID", "usage"), published.get((concat, m), ()), strict=False)),
            )
            for concat, m in rows
        ),
        metrics=RECONSTRUCTION,
        note=f"{BUDGET} `none`: k selects the sub-codebook, the decoder sees the pixel code alone.",
    )


def key_design() -> Ablation:
    """Table 7: semantic code only, SGHC, enhanced decoder."""
    base = _pixel(8)
    semantic_only = SemHiTokExperiment(
        "semhitok-semantic-only", changed(model={"subcodebook_size": 1, "concat": "semantic"})
    )
    stages: tuple[Stage, ...] = ("semantic", "pixel", "decoder")
    same_size = replace(base.recipe, enhanced_decoder=EnhancedDecoder(layers=3, width=128, heads=4, grow=True))
    enhanced = SemHiTokExperiment("semhitok-m8-enhanced", base.recipe, stages=stages)
    longer = SemHiTokExperiment("semhitok-m8-decoder-longer", same_size, stages=stages)
    return Ablation(
        name="key-design",
        title="Semantic code only, SGHC, enhanced decoder",
        source="SemHiTok, Table 7 (ImageNet-1K, 40 epochs)",
        rows=(
            Row({"design": "semantic code only"}, semantic_only, {"rFID": "3.17"}),
            Row({"design": "SGHC, m = 8"}, base, {"rFID": "1.42"}),
            Row({"design": "SGHC, the same decoder trained on"}, longer),
            Row({"design": "SGHC + enhanced decoder"}, enhanced, {"rFID": "1.16"}),
        ),
        metrics=RECONSTRUCTION,
        note=f"{BUDGET} The enhanced decoder has 6 layers in place of 3 and 750 steps more, decoder only; the row above it has "
        "these steps and 3 layers.",
    )


def semantic_quantizer() -> Ablation:
    """Table 10: kind and width of the semantic codebook."""
    published = {
        ("normalized", 48): ("1249.6", "52.2", "52.8"),
        ("vanilla", 48): ("1319.9", "56.3", "57.2"),
        ("ema", 32): ("1385.9", "58.3", "61.2"),
        ("ema", 48): ("1387.5", "61.3", "62.3"),
        ("ema", 64): ("1428.7", "60.9", "62.5"),
    }
    return Ablation(
        name="semantic-quantizer",
        title="Kind and width of the semantic codebook",
        source="SemHiTok, Table 10 (LLaVA-v1.5 setting)",
        rows=tuple(
            Row(
                {"VQ": kind, "d_s": str(dim)},
                _semantic(semantic_quantizer=kind, semantic_dim=dim),
                dict(zip(("MME-P", "MMB", "SEED"), values, strict=True)),
            )
            for (kind, dim), values in published.items()
        ),
        metrics=(
            PROBE,
            CHANCE,
            COSINE,
            Metric("semantic_usage", "usage, %", 1, 100),
            Metric("semantic_perplexity", "perplexity", 0),
        ),
        note="Stage 1 alone, 300 steps of 128 images. In place of the paper's benchmarks: a linear category probe on the "
        "codes, tested on concepts unseen in training, and how well the decoder restores the teacher's features.",
    )


def semantic_codebook_size() -> Ablation:
    """The number K of semantic codes, a limitation that the paper names."""
    sizes: Sequence[int] = (256, 1024, 4096)
    return Ablation(
        name="semantic-codebook-size",
        title="Number K of semantic codes, m = 8",
        source="",
        rows=tuple(
            Row(
                {"K": f"{size:,}"},
                _pixel(8)
                if size == 1024
                else SemHiTokExperiment(f"semhitok-K{size}-m8", changed(model={"semantic_codebook_size": size})),
            )
            for size in sizes
        ),
        metrics=(*RECONSTRUCTION, COSINE),
        note=BUDGET,
    )


def controls() -> Ablation:
    """Controls that the paper lacks: is it the meaning of the sub-codebooks that helps?"""
    base = ablation_recipe()
    joint = replace(base, name="joint", pixel=replace(base.pixel, loop=replace(base.pixel.loop, steps=2400)))
    # Stage 1 has as many steps and images as the joint run, so that only the order of training differs.
    slow = replace(base.semantic, loop=replace(base.semantic.loop, steps=2400, batch_size=16))
    staged = replace(joint, name="staged", semantic=slow)
    choices = {
        "SGHC: by semantic code": _pixel(8),
        "one codebook of m entries for all (independent VQ, joined by dim)": _control("shared"),
        "the same, joined by length": _control("shared", concat="length"),
        "by a fixed random partition": _control("random"),
        "one codebook of K (m - 1) entries for all, 1,460 bits": SemHiTokExperiment(
            "semhitok-shared7168", changed(model={"pixel_codebook": "shared", "subcodebook_size": 7168})
        ),
        "SGHC, both stages of 2,400 steps of 16 images": SemHiTokExperiment("semhitok-m8-longer", staged),
        "SGHC, both branches trained jointly": SemHiTokExperiment("semhitok-m8-joint", joint, stages=("joint",)),
        "the same, pixel losses kept from the semantic branch": SemHiTokExperiment(
            "semhitok-m8-joint-detached", replace(joint, joint_gradient=False), stages=("joint",)
        ),
    }
    return Ablation(
        name="controls",
        title="Which pixel codebook a patch uses, and staged against joint training",
        source="",
        rows=tuple(Row({"pixel codebook": name}, experiment) for name, experiment in choices.items()),
        metrics=(*RECONSTRUCTION, COSINE),
        note=f"{BUDGET} Joint: 2,400 steps of 16 images for both branches; the row above it is the staged run whose branches "
        "take as many steps on as many images each. Joined by length, the decoder sees twice the tokens, at the same bits.",
    )


def sub_codebook_error() -> Ablation:
    """Not in the paper: how much grouping by meaning lowers the error of a single patch."""
    stage_1 = replace(_pixel(8), name="semhitok-stage-1", stages=("semantic",))
    rules: dict[str, PixelCodebookKind] = {
        "by semantic code": "semantic",
        "one codebook of m entries for all": "shared",
        "by a fixed random partition": "random",
    }
    return Ablation(
        name="sub-codebook-error",
        title="Error of raw patches by the choice of the sub-codebook, no pixel branch",
        source="",
        rows=tuple(
            Row({"pixel codebook": name}, SubCodebookErrorExperiment(kind, stage_1)) for name, kind in rules.items()
        ),
        metrics=(
            Metric("semantic_error", "error of k alone, %", 1, 100),
            Metric("error", "error of k and j, %", 1, 100),
        ),
        note="Shares of the variance of patches of 600 held-out scenes. A patch is replaced by the mean patch of its semantic "
        "code (K = 1,024, stage 1 as in the other tables) and one of m = 8 centres of what that leaves, both fitted to 6,000 "
        "training scenes.",
    )


def adaptive() -> Ablation:
    """Beyond the paper: sub-codebooks of different sizes under the same total."""
    base = _pixel(8)
    return Ablation(
        name="adaptive",
        title="Sub-codebook sizes: uniform, or by frequency and variance of each semantic code",
        source="",
        rows=(
            Row({"sizes": "uniform, m = 8"}, base),
            Row(
                {"sizes": "adaptive, 8 on average"},
                SemHiTokExperiment("semhitok-m8-adaptive", base.recipe, adaptive=True),
            ),
        ),
        metrics=(*RECONSTRUCTION, PERPLEXITY),
        note=f"{BUDGET} Sizes minimise the expected error, f e m^(-2/d) summed over codes, for the frequency f and the "
        "variance e of raw patch pixels on 4,000 training images, with d = 15.",
    )


def losses() -> Ablation:
    """Loss weights and the adversarial stage, which the paper leaves open."""
    rows = {
        "pixel stage: L1": _pixel(8),
        "L1, commitment 1": SemHiTokExperiment("semhitok-m8-commitment1", changed(pixel={"commitment_weight": 1.0})),
        "then 400 steps more: L1": _finetuned("l1", perceptual=0.0, adversarial=0.0),
        "then L1 + 0.3 perceptual": _finetuned("perceptual03", perceptual=0.3, adversarial=0.0),
        "then L1 + 1 perceptual": _finetuned("perceptual1", perceptual=1.0, adversarial=0.0),
        "then L1 + 0.3 perceptual + 0.3 adversarial": _finetuned("adversarial", perceptual=0.3, adversarial=0.3),
    }
    return Ablation(
        name="losses",
        title="Loss weights and the adversarial loss",
        source="",
        rows=tuple(Row({"loss": name}, experiment) for name, experiment in rows.items()),
        metrics=RECONSTRUCTION,
        note=f"{BUDGET} The last four rows fine-tune the first one's model for 400 steps of 16 images, encoder and codes, too. "
        "The adversarial loss starts at step 50 of them; its weight is a factor on the adaptive one. The weight of the codebook "
        "loss is not varied: no other loss reaches the pixel codes, and AdamW does not see the scale of a gradient.",
    )


def _finetuned(name: str, *, perceptual: float, adversarial: float) -> SemHiTokExperiment:
    recipe = ablation_recipe()
    stage = recipe.pixel_finetune
    task = replace(stage.task, perceptual_weight=perceptual, adversarial_weight=adversarial)
    recipe = replace(recipe, pixel_finetune=replace(stage, task=task))
    return SemHiTokExperiment(f"semhitok-m8-finetuned-{name}", recipe, stages=("semantic", "pixel", "pixel-finetune"))


def _control(kind: str, concat: str = "dim") -> SemHiTokExperiment:
    name = f"semhitok-m8-{kind}" if concat == "dim" else f"semhitok-m8-{kind}-{concat}"
    return SemHiTokExperiment(name, changed(model={"pixel_codebook": kind, "concat": concat}))
