"""Writes scenes as webdataset tar shards with ``KEY.webp`` and ``KEY.json``, and ``dataset.json`` on their origin."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from PIL import Image

from semhitok.data.workers import follow_parent
from semhitok.scenes.compose import OBJECT_COUNTS, Scene, compose
from semhitok.scenes.grounds import GROUNDS
from semhitok.scenes.questions import Question, captions, questions
from semhitok.scenes.splits import Material
from semhitok.storage.atomic import atomic_file, write_text
from semhitok.types import SceneFormat, SceneGround, SceneSplit

MINIMUM_SIZE = 16  # pixels


@dataclass(frozen=True)
class SceneRecipe:
    """Everything besides the material that determines the bytes of a scene data set.

    Attributes:
        split: split of concepts and photographs.
        count: number of scenes.
        size: (height, width) in pixels.
        seed: seed of the series.
        bare_share: fraction of bare crops among the scenes on photographs.
        object_counts: allowed numbers of objects in the other scenes.
        image_format: lossless WebP (22 kB at 128 px), JPEG of quality 95 with full colour resolution (10 kB, about 42 dB), or
            PNG. Lossy WebP would halve the colour resolution and degrade the edges of cut-outs.
        per_shard: scenes per tar file.
        ground: what lies behind the objects: a ``photograph``, a ``plain`` colour or gradient, or, ``mixed``, each in half of
            the scenes.
    """

    split: SceneSplit
    count: int
    size: tuple[int, int] = (128, 128)
    seed: int = 0
    bare_share: float = 0.25
    object_counts: tuple[int, ...] = OBJECT_COUNTS
    image_format: SceneFormat = "webp"
    per_shard: int = 1000
    ground: SceneGround = "photograph"

    def __post_init__(self) -> None:
        if self.count < 1 or self.per_shard < 1:
            raise ValueError(f"count ({self.count}) and per_shard ({self.per_shard}) must be at least 1.")
        if min(self.size) < MINIMUM_SIZE:
            raise ValueError(f"size is {self.size}; scenes have at least {MINIMUM_SIZE} x {MINIMUM_SIZE} pixels.")
        if not 0.0 <= self.bare_share <= 1.0:
            raise ValueError(f"bare_share is {self.bare_share}; it must lie in [0, 1].")
        if not self.object_counts or not set(self.object_counts) <= set(OBJECT_COUNTS):
            raise ValueError(f"object_counts is {self.object_counts}; choose from {OBJECT_COUNTS}.")
        if self.ground not in GROUNDS:
            raise ValueError(f"ground is {self.ground!r}; choose from {', '.join(GROUNDS)}.")


def write_shards(
    directory: Path,
    recipe: SceneRecipe,
    material: Material,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Compose ``recipe.count`` scenes into ``directory/NAME-00000.tar`` and so on; the same bytes for any number of
    workers.

    Raises:
        ValueError: the directory already holds other files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty; scenes are written into a new or empty folder.")
    shards = range((recipe.count + recipe.per_shard - 1) // recipe.per_shard)
    paths: list[Path] = []
    with ProcessPoolExecutor(workers, initializer=follow_parent) as pool:
        for path in pool.map(_write_shard, repeat(directory), repeat(recipe), repeat(material), shards):
            paths.append(path)
            progress(min(recipe.count, len(paths) * recipe.per_shard), recipe.count)
    write_text(directory / "dataset.json", json.dumps(describe(recipe, material), indent=1))
    return paths


def _write_shard(directory: Path, recipe: SceneRecipe, material: Material, shard: int) -> Path:
    path = directory / f"{recipe.split}-{shard:05d}.tar"
    first = shard * recipe.per_shard
    indices = range(first, min(first + recipe.per_shard, recipe.count))
    scenes = [
        compose(
            recipe.seed,
            index,
            *recipe.size,
            material,
            bare_share=recipe.bare_share,
            object_counts=recipe.object_counts,
            ground=recipe.ground,
            series=recipe.split,
        )
        for index in indices
    ]
    with atomic_file(path) as unfinished, tarfile.open(unfinished, "w") as tar:
        for index, scene, asked in zip(indices, scenes, questions(scenes, recipe.seed), strict=True):
            key = f"{recipe.split}-{index:07d}"
            _add(tar, f"{key}.{recipe.image_format}", encode_image(scene.image, recipe.image_format))
            content = metadata(scene, asked) | _recorded(recipe, scene.ground)
            _add(tar, f"{key}.json", json.dumps(content, separators=(",", ":")).encode())
    return path


def _recorded(recipe: SceneRecipe, ground: SceneGround) -> dict[str, str]:
    """The ground as it is recorded: data sets on photographs do not mention it, so their bytes are those of older versions."""
    return {} if recipe.ground == "photograph" else {"ground": ground}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # the defaults (no time, no owner) make the bytes reproducible
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def encode_image(image: np.ndarray, image_format: SceneFormat) -> bytes:
    """(H,W,3) uint8 to a file's bytes."""
    buffer = io.BytesIO()
    options = {
        "webp": {"lossless": True, "quality": 0, "method": 0},
        "jpg": {"quality": 95, "subsampling": 0},
        "png": {},
    }[image_format]
    Image.fromarray(image).save(buffer, {"webp": "WEBP", "jpg": "JPEG", "png": "PNG"}[image_format], **options)
    return buffer.getvalue()


def metadata(scene: Scene, asked: Sequence[Question]) -> dict[str, object]:
    """The JSON of an image: captions, objects with boxes, relations, questions with answers, background."""
    return {
        "caption": scene.caption,
        "captions": captions(scene),
        "objects": [asdict(item) for item in scene.objects],
        "relations": [list(relation) for relation in scene.relations],
        "qa": [asdict(question) for question in asked],
        "background": scene.background,
        "photographic": round(scene.photographic, 4),
    }


def describe(recipe: SceneRecipe, material: Material) -> dict[str, object]:
    """Origin of a data set: recipe, concepts, and all sources with their licences and numbers of images."""
    pictures: dict[str, int] = {}
    authors: dict[str, set[str]] = {}
    for entry in (*material.cutouts.entries, *material.photographs.entries):
        title = f"{entry.source} ({entry.licence})"
        pictures[title] = pictures.get(title, 0) + 1
        authors.setdefault(title, set()).update([entry.author] if entry.author else [])
    written = {name: value for name, value in asdict(recipe).items() if name != "ground"}
    return {
        "recipe": written | _recorded(recipe, recipe.ground),
        "concepts": {concept: material.cutouts.category_of[concept] for concept in material.cutouts.concepts},
        "backgrounds": [entry.name for entry in material.photographs.entries],
        "sources": {
            title: {"pictures": count, "authors": sorted(authors[title])} for title, count in sorted(pictures.items())
        },
    }
