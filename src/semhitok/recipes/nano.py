"""``nano``: 64 px, 64 tokens, 1,024 x 8 codes; trains on a CPU in hours; a bundled checkpoint."""

from __future__ import annotations

from semhitok.recipes.recipe import BUILT_IN_TEACHER, DataConfig, EnhancedDecoder, PixelStage, Recipe, SemanticStage
from semhitok.training.loop_config import LoopConfig
from semhitok.training.optim import OptimizerConfig
from semhitok.training.tasks.pixel_config import PixelConfig
from semhitok.training.tasks.semantic_config import SemanticConfig


def nano() -> Recipe:
    """A small model with small batches and many steps, for a CPU."""
    return Recipe(
        name="nano",
        teacher=BUILT_IN_TEACHER,
        teacher_image_size=128,
        model={
            "image_size": 64,
            "patch_size": 8,
            "semantic_codebook_size": 1024,
            "semantic_dim": 48,
            "semantic_quantizer": "ema",
            "semantic_update_rule": "sum_count",
            "semantic_decay": 0.99,
            "semantic_decoder_layers": 3,
            "semantic_decoder_heads": 4,
            "subcodebook_size": 8,
            "pixel_dim": 16,
            "concat": "dim",
            "encoder_layers": 2,
            "encoder_width": 192,
            "encoder_heads": 4,
            "decoder_layers": 5,
            "decoder_width": 192,
            "decoder_heads": 4,
            "refine_channels": 16,
        },
        enhanced_decoder=EnhancedDecoder(layers=8, width=192, heads=4, grow=True),
        perceptual_depth="conv3_3",
        data=DataConfig(flip=False),
        semantic=SemanticStage(
            loop=LoopConfig(steps=1500, batch_size=128, preview_every=1000, checkpoint_every=500),
            task=SemanticConfig(
                optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=100, weight_decay=0.01), revive_every=50
            ),
        ),
        pixel=PixelStage(
            loop=LoopConfig(steps=20_000, batch_size=16, log_every=50, preview_every=1000, checkpoint_every=1000),
            task=PixelConfig(
                optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup_steps=500, weight_decay=0.01),
                perceptual_weight=0.0,
                adversarial_weight=0.0,
                initialise_step=300,
                revive_every=500,
            ),
        ),
        pixel_finetune=PixelStage(
            loop=LoopConfig(steps=3000, batch_size=16, log_every=50, preview_every=500, checkpoint_every=500),
            task=PixelConfig(
                optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=100, weight_decay=0.01),
                discriminator_optimizer=OptimizerConfig(
                    learning_rate=2e-4, beta1=0.5, warmup_steps=100, weight_decay=0.0, final_ratio=1.0
                ),
                perceptual_weight=0.1,  # 0.3 and more produce a grid of dots
                adversarial_weight=0.1,
                adversarial_start=500,
                discriminator_channels=32,
                revive_every=500,
            ),
        ),
        decoder=PixelStage(
            loop=LoopConfig(steps=2500, batch_size=16, log_every=50, preview_every=500, checkpoint_every=500),
            task=PixelConfig(
                optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=100, weight_decay=0.01),
                discriminator_optimizer=OptimizerConfig(
                    learning_rate=2e-4, beta1=0.5, warmup_steps=100, weight_decay=0.0, final_ratio=1.0
                ),
                decoder_only=True,
                perceptual_weight=0.08,
                adversarial_weight=0.1,
                adversarial_start=100,
                discriminator_channels=32,
            ),
        ),
    )
