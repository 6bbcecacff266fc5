"""``mini``: 128 px, 256 tokens, 2,048 x 8 codes; for a GPU."""

from __future__ import annotations

from dataclasses import replace

from semhitok.recipes.nano import nano
from semhitok.recipes.recipe import DataConfig, EnhancedDecoder, PixelStage, Recipe, SemanticStage
from semhitok.training.loop_config import LoopConfig
from semhitok.training.optim import OptimizerConfig


def mini() -> Recipe:
    """``nano`` at twice the resolution, with batches for a GPU."""
    small = nano()
    size = {
        "image_size": 128,
        "semantic_codebook_size": 2048,
        "encoder_layers": 3,
        "encoder_width": 256,
        "decoder_layers": 5,
        "decoder_width": 256,
    }

    def longer(stage: PixelStage, steps: int, rate: float) -> PixelStage:
        loop = LoopConfig(steps=steps, batch_size=128, log_every=50, preview_every=1000, checkpoint_every=1000)
        optimizer = OptimizerConfig(learning_rate=rate, warmup_steps=500, weight_decay=0.02)
        return replace(stage, loop=loop, task=replace(stage.task, optimizer=optimizer))

    semantic_loop = LoopConfig(steps=5000, batch_size=128, checkpoint_every=1000)
    return replace(
        small,
        name="mini",
        teacher_image_size=256,
        model=small.model | size,
        enhanced_decoder=EnhancedDecoder(layers=8, width=256, heads=4, grow=True),
        perceptual_depth="conv5_3",
        data=DataConfig(flip=False, workers=8),
        semantic=SemanticStage(loop=semantic_loop, task=small.semantic.task),
        pixel=longer(small.pixel, 20_000, 1e-3),
        pixel_finetune=longer(small.pixel_finetune, 10_000, 3e-4),
        decoder=longer(small.decoder, 8000, 3e-4),
    )
