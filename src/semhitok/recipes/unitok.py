"""UniTok's recipes (arXiv 2502.20321): ``unitok_large`` as released, and ``unitok_nano`` for a CPU."""

from __future__ import annotations

from semhitok.recipes.recipe import DataConfig
from semhitok.recipes.unitok_recipe import DinoSize, PatchSize, TextTower, UniTokRecipe
from semhitok.training.loop_config import LoopConfig
from semhitok.training.optim import OptimizerConfig
from semhitok.training.tasks.unitok_config import UniTokTrainingConfig

LARGE_BATCH = 16_384
LARGE_STEPS = 1_280_000_000 // LARGE_BATCH


def unitok_large() -> UniTokRecipe:
    """256 px, 256 tokens x 8 codes of 4,096 (rFID 0.38); ViTamin-L, one epoch of 1.28B captioned images.

    Published in the paper or with the code: sizes, losses, optimizers, warm-up 0.01, discriminator from 0.375 of the epoch on
    with a warm-up of 0.03, 64 images on each of 256 GPUs. Ours: the option of a perceptual loss on VGG16 features without
    LPIPS (``perceptual``), no random crops.
    """
    return UniTokRecipe(
        name="unitok_large",
        model={
            "image_size": 256,
            "stem_width": 160,
            "stage_widths": (160, 320, 1024),
            "stage_depths": (2, 4),
            "decoder_stage_depths": (4, 2),
            "depth": 31,
            "heads": 16,
            "drop_path": 0.1,
            "width": 64,
            "num_codebooks": 8,
            "codebook_size": 4096,
            "embed_dim": 768,
        },
        discriminator=DinoSize(),
        perceptual="lpips",
        data=DataConfig(flip=False, workers=8),
        loop=LoopConfig(
            steps=LARGE_STEPS, batch_size=LARGE_BATCH, log_every=50, preview_every=1000, checkpoint_every=1000
        ),
        task=UniTokTrainingConfig(
            optimizer=OptimizerConfig(
                learning_rate=5e-4,
                beta1=0.9,
                beta2=0.95,
                weight_decay=0.02,
                warmup_steps=LARGE_STEPS // 100,
                final_ratio=0.1,
                clip_norm=10.0,
            ),
            discriminator_optimizer=OptimizerConfig(
                learning_rate=2e-5,
                beta1=0.5,
                beta2=0.9,
                weight_decay=0.2,
                warmup_steps=LARGE_STEPS // 100,
                final_ratio=0.1,
                clip_norm=10.0,
            ),
            adversarial_start=LARGE_STEPS * 3 // 8,
            adversarial_warmup=LARGE_STEPS * 3 // 100,
        ),
    )


def unitok_nano() -> UniTokRecipe:
    """64 px, 16 tokens x 8 codes of 256, a small text tower; trains on captioned scenes on a CPU."""
    return UniTokRecipe(
        name="unitok_nano",
        model={
            "image_size": 64,
            "stem_width": 16,
            "stage_widths": (16, 24, 192),
            "stage_depths": (1, 1),
            "decoder_stage_depths": (1, 1),
            "depth": 3,
            "heads": 4,
            "drop_path": 0.0,
            "width": 64,
            "num_codebooks": 8,
            "codebook_size": 256,
            "embed_dim": 128,
        },
        text=TextTower(vocab_size=2048, context_length=32, width=128, layers=3, heads=4),
        discriminator=PatchSize(channels=32),
        perceptual_depth="conv3_3",
        data=DataConfig(flip=False),
        loop=LoopConfig(steps=20_000, batch_size=64, log_every=50, preview_every=1000, checkpoint_every=1000),
        task=UniTokTrainingConfig(
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=500, weight_decay=0.02, clip_norm=10.0),
            discriminator_optimizer=OptimizerConfig(
                learning_rate=2e-4, beta1=0.5, beta2=0.9, warmup_steps=100, weight_decay=0.0, final_ratio=1.0
            ),
            perceptual_weight=0.0,
            adversarial_weight=0.0,
            initialise_step=200,
            revive_every=500,
            revive_until=0.8,
            average_decay=0.999,
        ),
    )
