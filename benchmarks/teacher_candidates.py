"""The two candidates for the built-in teacher, compared by a category probe on concepts unseen in training.

Trains the small SigLIP tower for a given time (``benchmarks.small_teacher``), then fits a linear classifier of scene
categories to the mean over patches of each teacher's features on training scenes, and scores it on held-out ones.

    python -m benchmarks.teacher_candidates --train scenes/train --test scenes/heldout --out runs/teacher
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from benchmarks.small_teacher import TeacherRecipe, small_siglip, train_teacher
from torch import Tensor
from transformers import SiglipVisionConfig

from semhitok.data.reading import SizedImages
from semhitok.data.sources import ImageSource, open_source
from semhitok.data.transforms import to_float
from semhitok.evaluation.semantics.labels import label_of
from semhitok.metrics.probe import ProbeResult, probe
from semhitok.teachers import Teacher, TeacherConfig


@dataclass(frozen=True)
class Labelled:
    """Images (n,3,H,W) uint8 with the category and the concept of their largest object."""

    images: Tensor
    labels: list[str]
    concepts: list[str]


@dataclass(frozen=True)
class Row:
    """One candidate in the table."""

    name: str
    teacher: Teacher
    images_per_second: float
    result: ProbeResult


def labelled(source: ImageSource, size: int, limit: int) -> Labelled:
    """The images with an object among ``limit`` evenly spaced ones."""
    images, labels, concepts = [], [], []
    for batch in SizedImages(source, size, limit=limit):
        for image, metadata in zip(batch.images, batch.metadata, strict=True):
            found = label_of(metadata)
            if found is not None:
                images.append(image)
                labels.append(found[0])
                concepts.append(found[1] or f"image {len(concepts)}")
    return Labelled(torch.stack(images), labels, concepts)


def mean_features(teacher: Teacher, images: Tensor, batch_size: int = 64) -> Tensor:
    """(n,D): the mean over patches of each image."""
    return torch.cat([teacher(to_float(part)).float().mean(dim=1) for part in images.split(batch_size)])


def compare(candidates: Sequence[tuple[str, Teacher]], train: Labelled, test: Labelled) -> list[Row]:
    """Probe each candidate on the mean patch features of each image."""
    rows = []
    for name, teacher in candidates:
        begun = time.perf_counter()
        train_features, test_features = (mean_features(teacher, part.images) for part in (train, test))
        speed = (len(train.images) + len(test.images)) / (time.perf_counter() - begun)
        result = probe(train_features, train.labels, test_features, test.labels, train_groups=train.concepts)
        rows.append(Row(name, teacher, speed, result))
        print(f"{name}: {result.accuracy:.3f}", file=sys.stderr, flush=True)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Markdown, one row per candidate."""
    lines = ["| teacher | parameters | D | images/s | accuracy | balanced accuracy |", "|---|---|---|---|---|---|"]
    for row in rows:
        count = sum(parameter.numel() for parameter in row.teacher.parameters())
        lines.append(
            f"| {row.name} | {count / 1e6:.2f}M | {row.teacher.dim} | {row.images_per_second:.0f} "
            f"| {row.result.accuracy:.1%} | {row.result.balanced_accuracy:.1%} |"
        )
    return "\n".join(lines)


def random_tower(recipe: TeacherRecipe) -> Teacher:
    """The small tower before training, as a baseline of its architecture alone."""
    torch.manual_seed(0)
    backbone_config = SiglipVisionConfig(**recipe.backbone)
    return Teacher(TeacherConfig(backbone_config, image_size=recipe.backbone["image_size"], layer=-1))


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="scenes to train on and to fit the probe on")
    parser.add_argument("--test", required=True, help="scenes of held-out concepts")
    parser.add_argument("--out", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--max-seconds", type=float, default=720, help="time budget of training, without preparation")
    parser.add_argument("--images", type=int, default=20_000, help="maximum number of training images")
    parser.add_argument(
        "--probe-images", type=int, default=5000, help="maximum number of images on either side of the probe"
    )
    arguments = parser.parse_args()

    recipe = small_siglip()
    loop = replace(recipe.loop, max_seconds=arguments.max_seconds)
    recipe = replace(recipe, images=arguments.images, loop=loop)
    train_source, test_source = open_source(arguments.train), open_source(arguments.test)
    state = train_teacher(recipe, train_source, arguments.out, device=torch.device("cpu"))

    size = recipe.backbone["image_size"]
    train, test = (labelled(source, size, arguments.probe_images) for source in (train_source, test_source))
    model = arguments.out / "model"
    rows = compare(
        [
            ("EfficientNet-Lite0, stride-16 grid", Teacher.efficientnet_lite0(image_size=size)),
            ("small SigLIP, last layer", Teacher.from_pretrained(model, layer=-1)),
            ("small SigLIP, penultimate layer", Teacher.from_pretrained(model, layer=-2)),
            ("small SigLIP, random weights", random_tower(recipe)),
        ],
        train,
        test,
    )
    print(table(rows))
    best = rows[0].result
    print(
        f"\n{best.train_images} training scenes, {best.test_images} of held-out concepts, {len(best.per_class)} "
        f"categories, chance {best.chance:.1%}. Small SigLIP: {state.step} steps, {state.samples} images seen in "
        f"{state.seconds:.0f} s, {os.environ.get('OMP_NUM_THREADS', os.cpu_count())} CPU threads, "
        f"torch {version('torch')}, transformers {version('transformers')}."
    )


if __name__ == "__main__":
    main()
