"""How much does ``encode`` cost beyond its two networks?

    python -m benchmarks.encode_overhead [--quick]

Left: images to ids by the whole tokenizer. Right: the bare transformers vision tower and the pixel encoder, on inputs that
are already resized and normalised: no semantic projection, no quantizer, no checks.
"""

from __future__ import annotations

import torch
from benchmarks.measuring import interleaved
from benchmarks.models import random_images, random_model, recipe_named
from benchmarks.reporting import Aim, Report, Row, run_alone

from semhitok.nn.patches import resize


@torch.no_grad()
def measure(quick: bool) -> Report:
    """``semhitok_256`` at batch 1 to 4; ``nano`` at batch 1 if quick."""
    recipe = recipe_named("nano" if quick else "semhitok_256")
    model = random_model(recipe)
    teacher, pixel_encoder = model.teacher, model.pixel_encoder
    assert teacher is not None, "a model with its encoder side"
    assert pixel_encoder is not None, "a model with its encoder side"
    rows, size = [], model.config.image_size
    for batch in (1,) if quick else (1, 2, 4):
        images = random_images(batch, size)
        for_teacher = resize(images, recipe.teacher_image_size, recipe.teacher_image_size)
        # Bound by keyword: a closure would see the images of the last batch size only.
        sides = {
            "encode": lambda images=images: model.encode(images),
            "networks": lambda images=images, for_teacher=for_teacher: (
                teacher.backbone(for_teacher),
                pixel_encoder(images, model.config.grid(size, size)),
            ),
        }
        times = interleaved(sides, rounds=3 if quick else 5)
        rows.append(
            Row.of_times(
                f"batch {batch}",
                ("encode", times["encode"]),
                ("teacher + pixel encoder", times["networks"]),
                aim=None if quick else Aim("at most", 1.1),
            )
        )
    return Report(
        name="encode_overhead",
        title="encode against its bare networks",
        method=f"`{recipe.name}`, {size} px, fp32, random weights. Bare: the vision tower of transformers and the pixel "
        "encoder, on prepared inputs.",
        rows=rows,
    )


if __name__ == "__main__":
    run_alone(measure, __doc__)
