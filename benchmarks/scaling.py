"""How do costs grow with vectors N, codes K, sub-codes m, batch and resolution?

    python -m benchmarks.scaling [--quick]

N, K and m: lookup of ids by SGHC and by a flat search, varying one size at a time. Batch and resolution: ``encode`` and
``decode`` of a model with the shape of ``mini``, per image. Every row compares a size with the smallest of its series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from benchmarks.measuring import Operation, Timing, interleaved
from benchmarks.models import random_images, random_model, recipe_named
from benchmarks.reporting import Report, Row, run_alone
from benchmarks.scaling_plot import Panel, draw_panels
from benchmarks.sghc_lookup import flat_case, hierarchical_case

from semhitok.tokenizers import SemHiTokModel

VECTORS, CODES, SUBCODES = 1024, 16_384, 12
SERIES = {"N": (256, 1024, 4096), "K": (1024, 4096, 16_384, 65_536), "m": (1, 4, 12, 32)}
BATCHES, RESOLUTIONS = (1, 2, 4, 8, 16), (64, 128, 256, 512)
QUICK_VECTORS, QUICK_CODES = 64, 256
QUICK_SERIES = {"N": (64, 128), "K": (128, 256), "m": (1, 4)}
QUICK_BATCHES, QUICK_RESOLUTIONS = (1, 2), (64, 96)

# Curve -> size -> its timing.
Curves = Mapping[str, Mapping[int, Timing]]


def measure(quick: bool) -> Report:
    """Five series; ``nano`` in place of ``mini`` if quick."""
    rounds = 2 if quick else 3
    base = {"N": QUICK_VECTORS, "K": QUICK_CODES, "m": SUBCODES} if quick else None
    base = base or {"N": VECTORS, "K": CODES, "m": SUBCODES}
    rows, panels = [], []
    for letter, sizes in (QUICK_SERIES if quick else SERIES).items():
        sides: dict[tuple[str, int], Operation] = {}
        for size in sizes:
            shape = base | {letter: size}
            sides["SGHC", size] = hierarchical_case(shape["N"], shape["K"], shape["m"])
            sides["flat", size] = flat_case(shape["N"], shape["K"], shape["m"])
        curves = _timed(sides, rounds)
        rows += growth_rows(letter, curves)
        fixed = ", ".join(f"{other} = {value:,}" for other, value in base.items() if other != letter)
        panels.append(panel_of(f"ids of N vectors, {fixed}", letter, curves))
    recipe = recipe_named("nano" if quick else "mini")
    model = random_model(recipe)
    shapes = {
        "batch": {batch: (batch, model.config.image_size) for batch in (QUICK_BATCHES if quick else BATCHES)},
        "resolution": {side: (1, side) for side in (QUICK_RESOLUTIONS if quick else RESOLUTIONS)},
    }
    for what, cases in shapes.items():
        images_per_case = {size: batch for size, (batch, _) in cases.items()}
        curves = per_image(_timed(_model_sides(model, cases), rounds), images_per_case)
        rows += growth_rows(f"{what}, per image", curves)
        panels.append(panel_of(f"one image of a {recipe.name} model", what, curves))
    return Report(
        name="scaling",
        title="How costs grow",
        method=f"Lookups with N = {base['N']:,}, K = {base['K']:,}, m = {base['m']} where they are not varied; `{recipe.name}` "
        "at its own resolution with growing batches, and at batch 1 with growing resolutions (the token grid grows along). "
        "Each size is compared with the smallest of its series.",
        rows=rows,
        pictures={"scaling": draw_panels(panels, title="Cost as sizes grow")},
    )


def per_image(curves: Curves, images: Mapping[int, int]) -> dict[str, dict[int, Timing]]:
    """Timings divided by the number of images of each size."""

    def divided(seconds: Sequence[float], count: int) -> tuple[float, ...]:
        return tuple(second / count for second in seconds)

    return {
        curve: {
            size: Timing(divided(timing.wall, images[size]), divided(timing.cpu, images[size]))
            for size, timing in points.items()
        }
        for curve, points in curves.items()
    }


def growth_rows(what: str, curves: Curves) -> list[Row]:
    """Each size compared with the smallest one of the same curve."""
    rows = []
    for curve, points in curves.items():
        smallest = min(points)
        rows += [
            Row.of_times(what, (f"{curve} {size:,}", points[size]), (f"{curve} {smallest:,}", points[smallest]))
            for size in sorted(points)
            if size != smallest
        ]
    return rows


def panel_of(title: str, across: str, curves: Curves) -> Panel:
    """Medians in milliseconds."""
    lines = {
        curve: [(size, 1000 * points[size].seconds.median) for size in sorted(points)]
        for curve, points in curves.items()
    }
    return Panel(title=title, across=across, up="ms", curves=lines)


def _timed(sides: Mapping[tuple[str, int], Operation], rounds: int) -> dict[str, dict[int, Timing]]:
    """All sizes and curves of a series in one run, interleaved."""
    names = {f"{curve} {size}": (curve, size) for curve, size in sides}
    times = interleaved({name: sides[key] for name, key in names.items()}, rounds=rounds)
    curves: dict[str, dict[int, Timing]] = {}
    for name, (curve, size) in names.items():
        curves.setdefault(curve, {})[size] = times[name]
    return curves


@torch.no_grad()
def _model_sides(model: SemHiTokModel, cases: Mapping[int, tuple[int, int]]) -> dict[tuple[str, int], Operation]:
    sides: dict[tuple[str, int], Operation] = {}
    for size, (batch, side) in cases.items():
        images = random_images(batch, side)
        ids = model.encode(images).ids
        sides["encode", size] = lambda images=images: model.encode(images)
        sides["decode", size] = lambda ids=ids: model.decode(ids)
    return sides


if __name__ == "__main__":
    run_alone(measure, __doc__)
