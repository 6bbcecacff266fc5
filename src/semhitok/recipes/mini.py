"""``mini``: 128 px, 256 tokens, 512 x 32 codes; trains on a CPU in half a day; a bundled checkpoint."""

from __future__ import annotations

from dataclasses import replace

from semhitok.recipes.nano import nano
from semhitok.recipes.recipe import EnhancedDecoder, PixelStage, Recipe, SemanticStage
from semhitok.training.optim import OptimizerConfig


def mini() -> Recipe:
    """``nano`` at twice the resolution: fewer meanings, more looks of each, small batches, and no adversarial loss.

    Sizes and losses come from short trials (docs/experiments.md): 512 x 32 codes lose 0.7 dB to 512 x 64, which the head of a language
    model would pay for; the adversarial loss puts dots on smooth things.
    """
    small = nano()
    size = {
        "image_size": 128,
        "semantic_codebook_size": 512,
        "subcodebook_size": 32,
        "encoder_heads": 3,
        "decoder_heads": 3,
        "refine_channels": 8,
    }

    def longer(stage: PixelStage, steps: int, rate: float, **losses: float | int) -> PixelStage:
        loop = replace(
            stage.loop, steps=steps, batch_size=8, preview_every=1000, checkpoint_every=100, evaluate_every=1000
        )
        optimizer = replace(stage.task.optimizer, learning_rate=rate, warmup_steps=150)
        return replace(stage, loop=loop, task=replace(stage.task, optimizer=optimizer, **losses))

    gentle = {"adversarial_weight": 0.0, "perceptual_weight": 0.03}
    return replace(
        small,
        name="mini",
        teacher_image_size=256,
        model=small.model | size,
        enhanced_decoder=EnhancedDecoder(layers=8, width=192, heads=3, grow=True),
        rounded=True,
        semantic=SemanticStage(
            loop=replace(small.semantic.loop, steps=700, batch_size=16, checkpoint_every=250),
            task=replace(
                small.semantic.task,
                optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=100, weight_decay=0.01),
            ),
        ),
        pixel=longer(small.pixel, 26_000, 1.2e-3, initialise_step=200, revive_every=250),
        pixel_finetune=longer(small.pixel_finetune, 12_000, 6e-4, **gentle),
        decoder=longer(small.decoder, 12_000, 6e-4, **gentle),
    )
