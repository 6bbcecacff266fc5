"""The paper's models (arXiv 2503.06764, sections 4.1 and Table 3): ``semhitok_256``, ``semhitok_256_m8``, ``semhitok_384``.

Stated in the paper: teachers, K, d_s, batch size 256, learning rates, data, module sizes. Not stated, and therefore ours: loss
weights, warm-up, weight decay, start of the adversarial loss (see ``PixelConfig``), and the steps of fine-tuning.

Steps follow from images / batch: 50M COYO = 195,312; 40 epochs of ImageNet-1K = 200,182; 20M COYO = 78,125;
20M COYO + 20M synthetic images = 156,250.
"""

from __future__ import annotations

from dataclasses import replace

from semhitok.recipes.recipe import DataConfig, EnhancedDecoder, PixelStage, Recipe, SemanticStage
from semhitok.training.loop_config import LoopConfig
from semhitok.training.optim import OptimizerConfig
from semhitok.training.tasks.pixel_config import PixelConfig
from semhitok.training.tasks.semantic_config import SemanticConfig

BATCH = 256
SEMANTIC_STEPS = 50_000_000 // BATCH
PIXEL_STEPS = 40 * 1_281_167 // BATCH
FINETUNE_STEPS = 20_000_000 // BATCH
DECODER_STEPS = 40_000_000 // BATCH


def _loop(steps: int) -> LoopConfig:
    return LoopConfig(steps=steps, batch_size=BATCH, log_every=50, preview_every=2000, checkpoint_every=2000)


def _pixel_task(rate: float, adversarial_start: int, decoder_only: bool = False) -> PixelConfig:
    return PixelConfig(
        optimizer=OptimizerConfig(learning_rate=rate, warmup_steps=2000),
        discriminator_optimizer=OptimizerConfig(learning_rate=rate, beta1=0.5, warmup_steps=2000, weight_decay=0.0),
        decoder_only=decoder_only,
        adversarial_start=adversarial_start,
        initialise_step=500,
        revive_every=500,
        average_decay=0.9999,
    )


def semhitok_256() -> Recipe:
    """256 px, 256 tokens, 16,384 x 12 = 196,608 codes (Table 2: rFID 1.16); SigLIP-large-patch16-256."""
    return Recipe(
        name="semhitok_256",
        teacher="google/siglip-large-patch16-256",
        teacher_image_size=256,
        model={
            "image_size": 256,
            "patch_size": 16,
            "semantic_codebook_size": 16_384,
            "semantic_dim": 48,
            "semantic_quantizer": "ema",
            "semantic_update_rule": "sum_count",
            "semantic_decay": 0.99,
            "semantic_decoder_layers": 3,
            "semantic_decoder_heads": 16,
            "subcodebook_size": 12,
            "pixel_dim": 16,
            "concat": "dim",
            "encoder_layers": 12,
            "encoder_width": 768,
            "encoder_heads": 12,
            "decoder_layers": 12,
            "decoder_width": 768,
            "decoder_heads": 12,
            "refine_channels": 0,
        },
        enhanced_decoder=EnhancedDecoder(layers=24, width=1024, heads=16),
        data=DataConfig(flip=True, workers=8),
        semantic=SemanticStage(
            loop=_loop(SEMANTIC_STEPS),
            task=SemanticConfig(optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=2000)),
        ),
        pixel=PixelStage(loop=_loop(PIXEL_STEPS), task=_pixel_task(1e-4, adversarial_start=20_000)),
        pixel_finetune=PixelStage(loop=_loop(FINETUNE_STEPS), task=_pixel_task(4e-5, adversarial_start=2000)),
        decoder=PixelStage(
            loop=_loop(DECODER_STEPS), task=_pixel_task(2e-5, adversarial_start=10_000, decoder_only=True)
        ),
    )


def semhitok_256_m8() -> Recipe:
    """As ``semhitok_256`` with m = 8, the number in the paper's text (Tables 7 and 9: rFID 1.42 before stage 3)."""
    recipe = semhitok_256()
    return replace(recipe, name="semhitok_256_m8", model=recipe.model | {"subcodebook_size": 8})


def semhitok_384() -> Recipe:
    """384 px, 27 x 27 = 729 tokens (Table 2: rFID 0.66); SigLIP-so400m-patch14-384.

    384 / 14 is 27.43: the teacher's convolution ignores 6 px, the pixel branch sees the image resampled to 378 px.
    """
    recipe = semhitok_256()
    size = {"image_size": 384, "patch_size": 14}
    return replace(
        recipe,
        name="semhitok_384",
        teacher="google/siglip-so400m-patch14-384",
        teacher_image_size=384,
        model=recipe.model | size,
    )
