"""The systems of the comparison on one ViT: their published quantizers, losses and weights, at one small size and budget.

Published values are from the papers and the public code (VQGAN-LC, IBQ, FQGAN, TokenFlow, BSQ, WeTok); what is ours is the
backbone, the data, the optimizer, and the number of codes: 12 bits per token for all, so that rows are compared at equal
bits, and 32 bits per token once more for systems with several codes. None of them has a perceptual or adversarial loss here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from semhitok.quantizers import OWN_QUANTIZERS
from semhitok.recipes.recipe import DataConfig
from semhitok.recipes.vit_recipe import ViTRecipe, ViTStageRecipe
from semhitok.training.loop_config import LoopConfig
from semhitok.training.optim import OptimizerConfig
from semhitok.training.tasks.vit_config import ViTTrainingConfig

BITS_PER_TOKEN = 12
CODES = 2**BITS_PER_TOKEN
BACKBONE: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 8,
    "encoder_layers": 2,
    "encoder_width": 128,
    "encoder_heads": 4,
    "decoder_layers": 3,
    "decoder_width": 128,
    "decoder_heads": 4,
    "refine_channels": 0,
}
VQ = {"codebook": 1.0, "commitment": 0.25}
DISTILLATION_WEIGHT = 1.0  # of the cosine and of the L1 distance to the teacher's features, as in SemHiTok's stage 1


def comparison_loop(steps: int = 1500, batch_size: int = 16) -> LoopConfig:
    """The budget of every system's reconstruction; the same as that of SemHiTok's pixel stage in its tables."""
    return LoopConfig(
        steps=steps,
        batch_size=batch_size,
        log_every=50,
        preview_every=10**9,
        first_preview_seconds=1e9,
        checkpoint_every=500,
        keep_checkpoints=1,
    )


def comparison_recipe(
    name: str, quantizer: str, weights: Mapping[str, float] = VQ, *, distilled: bool = False, **model: Any
) -> ViTRecipe:
    """A system at the common size and budget.

    Args:
        name: its name.
        quantizer: its quantizer.
        weights: weights of the quantizer's losses.
        distilled: also train the semantic decoder, together with the reconstruction.
        model: further fields of ``ViTTokenizerConfig``.
    """
    task = ViTTrainingConfig(
        optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup_steps=100, weight_decay=0.01),
        perceptual_weight=0.0,
        adversarial_weight=0.0,
        quantizer_weights=dict(weights),
        initialise_step=150,
        revive_every=150,
        cosine_weight=DISTILLATION_WEIGHT if distilled else 0.0,
        feature_weight=DISTILLATION_WEIGHT if distilled else 0.0,
    )
    fields = {**BACKBONE, "quantizer": quantizer, "codebook_size": CODES, **model}
    return ViTRecipe(
        name=name,
        model=fields,
        reconstruction=ViTStageRecipe(comparison_loop(), task),
        perceptual_depth="conv3_3",
        data=DataConfig(flip=False),
    )


def vqgan() -> ViTRecipe:
    """VQGAN as in LlamaGen (arXiv 2406.06525): one l2-normalised codebook, 8 channels, commitment 0.25."""
    return comparison_recipe("vqgan", "normalized", code_dim=8)


def simvq() -> ViTRecipe:
    """SimVQ (arXiv 2411.02038): a frozen random table behind a trained linear map; its code has 1 and 0.25 for the losses."""
    return comparison_recipe("simvq", "projected", {"codebook": 0.25, "commitment": 1.0}, code_dim=32)


def rqvae(codes: int = 8, name: str = "rqvae") -> ViTRecipe:
    """RQ-VAE (arXiv 2203.01941): residual quantization, 4 depths, one codebook for all."""
    return comparison_recipe(name, "residual", code_dim=32, codes_per_token=4, codebook_size=codes)


def vqgan_lc() -> ViTRecipe:
    """VQGAN-LC (arXiv 2406.11837): frozen cluster centres of the teacher's features, a trained linear projector; 1 and 0.33."""
    recipe = comparison_recipe("vqgan-lc", "projected", {"codebook": 0.33, "commitment": 1.0}, code_dim=8)
    return replace(recipe, clustered_table=True)


def ibq() -> ViTRecipe:
    """IBQ (arXiv 2412.02692): index back-propagation, entropy 0.05; its code has 1, 1 and 0.25 for the squared errors."""
    weights = {"index": 1.0, "commitment": 1.0, "codebook": 0.25, "token_entropy": 0.05, "diversity": 0.05}
    return comparison_recipe("ibq", "ibq", weights, code_dim=32)


def fqgan() -> ViTRecipe:
    """FQGAN (arXiv 2411.16681): two factorised codebooks of 8 channels, disentanglement 0.1, the first predicts the teacher."""
    model: dict[str, Any] = {
        "code_dim": 16,
        "codes_per_token": 2,
        "codebook_size": math.isqrt(CODES),
        "semantic_channels": 8,
    }
    return comparison_recipe("fqgan", "factorized", VQ | {"disentanglement": 0.1}, distilled=True, **model)


def fsq() -> ViTRecipe:
    """FSQ (arXiv 2309.15505): 4 channels of 8 levels; no losses."""
    return comparison_recipe("fsq", "fsq", {}, code_dim=4, levels=(8, 8, 8, 8))


def lfq() -> ViTRecipe:
    """LFQ (MAGVIT-v2, arXiv 2310.05737): 12 signs; entropy 0.1, commitment 0.25."""
    weights = {"commitment": 0.25, "token_entropy": 0.1, "diversity": 0.1}
    return comparison_recipe("lfq", "lfq", weights, code_dim=BITS_PER_TOKEN)


def bsq() -> ViTRecipe:
    """BSQ (arXiv 2406.07548): 12 signs on the sphere; entropy 0.1 at temperature 1 and, as in its code, no commitment loss."""
    weights = {"commitment": 0.0, "token_entropy": 0.1, "diversity": 0.1}
    return comparison_recipe("bsq", "bsq", weights, code_dim=BITS_PER_TOKEN, entropy_temperature=1.0)


def wetok(bits: int = BITS_PER_TOKEN, name: str = "wetok") -> ViTRecipe:
    """WeTok's group-wise lookup-free codes (arXiv 2508.05599): 4 groups of signs, entropies by group; no generative decoder."""
    weights = {"commitment": 0.25, "token_entropy": 0.1, "diversity": 0.1}
    model: dict[str, Any] = {"code_dim": bits, "codes_per_token": 4, "codebook_size": 2 ** (bits // 4)}
    return comparison_recipe(name, "grouped_bits", weights, **model)


def vila_u(codes: int = 8, name: str = "vila-u") -> ViTRecipe:
    """VILA-U (arXiv 2409.04429): residual quantization and meaning at once; here distilled, published with a contrastive loss."""
    model: dict[str, Any] = {"code_dim": 32, "codes_per_token": 4, "codebook_size": codes, "semantic_channels": 32}
    return comparison_recipe(name, "residual", distilled=True, **model)


def unitok(codes: int = 8, name: str = "unitok") -> ViTRecipe:
    """UniTok's MCQ (arXiv 2502.20321) on this ViT; here distilled, published with a contrastive loss."""
    model: dict[str, Any] = {"code_dim": 64, "codes_per_token": 4, "codebook_size": codes, "semantic_channels": 64}
    return comparison_recipe(name, "multi_codebook", distilled=True, **model)


def sde() -> ViTRecipe:
    """SDE (MUSE-VL, arXiv 2411.17762): teacher and pixel encoder, one codebook over their joined features."""
    return comparison_recipe("sde", "normalized", distilled=True, code_dim=16, semantic_dim=8, semantic_channels=16)


def tokenflow() -> ViTRecipe:
    """TokenFlow (arXiv 2412.03069), single-scale: two codebooks of 32 and 8 channels with one shared index; commitment 1."""
    model: dict[str, Any] = {"code_dim": 40, "semantic_dim": 32, "semantic_channels": 32, "pixel_channels": 8}
    return comparison_recipe("tokenflow", "shared_index", {"codebook": 1.0, "commitment": 1.0}, distilled=True, **model)


def toklip() -> ViTRecipe:
    """TokLIP (arXiv 2505.05422): codes of a finished VQGAN, and a semantic encoder over them, trained afterwards."""
    recipe = comparison_recipe("toklip", "normalized", code_dim=8, semantic_channels=8)
    task = ViTTrainingConfig(
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=100, weight_decay=0.01),
        quantizer_weights={},
        semantic_only=True,
        initialise_step=None,
        average_decay=0.99,
        cosine_weight=DISTILLATION_WEIGHT,
        feature_weight=DISTILLATION_WEIGHT,
    )
    return replace(recipe, understanding=ViTStageRecipe(comparison_loop(steps=300, batch_size=128), task))


def rqvae_2048() -> ViTRecipe:
    """RQ-VAE with 32 bits per token: 4 depths of 256 codes."""
    return rqvae(256, "rqvae-2048bit")


def wetok_2048() -> ViTRecipe:
    """WeTok with 32 bits per token: 4 groups of 8 bits."""
    return wetok(32, "wetok-2048bit")


def vila_u_2048() -> ViTRecipe:
    """VILA-U with 32 bits per token: 4 depths of 256 codes."""
    return vila_u(256, "vila-u-2048bit")


def unitok_2048() -> ViTRecipe:
    """UniTok with 32 bits per token: 4 codebooks of 256 codes."""
    return unitok(256, "unitok-2048bit")


def own_recipe(name: str) -> ViTRecipe:
    """A registered quantizer at the common size and budget (``quantizers.register_quantizer``)."""
    own = OWN_QUANTIZERS[name]
    return comparison_recipe(name, name, own.weights, code_dim=own.code_dim)


_SYSTEMS: tuple[Callable[[], ViTRecipe], ...] = (
    *(vqgan, simvq, rqvae, vqgan_lc, ibq, fqgan, fsq, lfq, bsq, wetok, vila_u, unitok, sde, tokenflow, toklip),
    *(rqvae_2048, wetok_2048, vila_u_2048, unitok_2048),
)
VIT_RECIPES: dict[str, Callable[[], ViTRecipe]] = {make().name: make for make in _SYSTEMS}
"""The systems by name."""
