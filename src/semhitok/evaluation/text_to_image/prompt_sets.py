"""Text-to-image benchmarks: their prompt files, and images in the layouts that their scorers read.

    layout       prompts                     images
    geneval      evaluation_metadata.jsonl   00000/samples/0000.png ... with 00000/metadata.jsonl; 4 a prompt
    mjhq         meta_data.json              <category>/<id>.png
    genai-bench  genai_image.json            <id>.jpeg
    plain        a prompt on each line       00000.png

GenEval: ``evaluation/evaluate_images.py`` (github.com/djghosh13/geneval) goes through the folders whose names are digits,
reads ``metadata.jsonl`` as one JSON object, that of the prompt's line, and scores each ``samples/<digits>.png``.

MJHQ-30K: clean-fid (github.com/GaParmar/clean-fid), ``fid.compute_fid(reference, generated)``, takes every image file below
both folders, whatever its name. The reference (huggingface.co/datasets/playgroundai/MJHQ-30K) has a folder for each
category, so the same folders serve for the overall distance and for that of a category.

GenAI-Bench: ``genai_bench/evaluate.py`` (github.com/linzhiqiu/t2v_metrics) reads ``<output_dir>/<gen_model>/<id>.jpeg`` for
each key of the file; the folder written here is ``<output_dir>/<gen_model>``.

Such a folder holds no other images, and all of its images come from the same settings, which are stored beside them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semhitok.data.randomness import random_bits
from semhitok.storage.atomic import atomic_file, write_text
from semhitok.types import PromptLayout

Draw = Callable[[Sequence[str], Sequence[int]], Sequence[Image.Image]]
"""(prompts, seeds) -> images; consecutive images of a set have consecutive seeds."""

SETTINGS = "settings.json"
GENEVAL_SAMPLES = 4
_STREAM = 0x6472_6177  # tells these random numbers from others of the same seed


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        key: names its images.
        text: the prompt itself.
        extra: GenEval's line of metadata, MJHQ's category; empty otherwise.
    """

    key: str
    text: str
    extra: str = ""


@dataclass(frozen=True)
class PromptSet:
    """A file of prompts; its images are numbered consecutively, prompt by prompt.

    Attributes:
        layout: layout of the images.
        prompts: in the order of the file.
        samples: images per prompt.
        digest: digest of the file's content.
    """

    layout: PromptLayout
    prompts: tuple[Prompt, ...]
    samples: int
    digest: str

    def __len__(self) -> int:
        """Number of images of the set."""
        return len(self.prompts) * self.samples

    def prompt(self, number: int) -> Prompt:
        """Prompt of image ``number``."""
        return self.prompts[number // self.samples]

    def image(self, folder: Path, number: int) -> Path:
        """Path of image ``number``."""
        prompt = self.prompt(number)
        match self.layout:
            case "geneval":
                return folder / prompt.key / "samples" / f"{number % self.samples:04d}.png"
            case "mjhq":
                return folder / prompt.extra / f"{prompt.key}.png"
            case "genai-bench":
                return folder / f"{prompt.key}.jpeg"
            case "plain":
                return folder / f"{prompt.key}.png"

    def missing(self, folder: Path) -> list[int]:
        """Numbers of the missing images; an empty file, which a power failure can leave behind, counts as missing."""
        return [number for number in range(len(self)) if not _has_content(self.image(folder, number))]


def read_prompt_set(file: Path, layout: PromptLayout, samples: int | None = None) -> PromptSet:
    """Read the prompts of a benchmark.

    Args:
        file: as published; see the docstring of this module.
        layout: its format.
        samples: images per prompt: any number for GenEval, by default 4; one in the other layouts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line or key has no prompt or lacks what the scorer reads, a key cannot name a file, there are no
            prompts, or ``samples`` is above 1 in a layout with one image per prompt.
    """
    if samples is None:
        samples = GENEVAL_SAMPLES if layout == "geneval" else 1
    if layout != "geneval" and samples != 1:
        raise ValueError(f"the layout {layout} has one image for each prompt, got {samples} (geneval has several)")
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text") from error
    match layout:
        case "geneval":
            prompts = [_geneval(line, index, file) for index, line in enumerate(_lines(text))]
        case "plain":
            prompts = [_plain(line, index, file) for index, line in enumerate(_lines(text))]
        case "mjhq":
            prompts = [_keyed(key, entry, file, "category") for key, entry in _object(text, file).items()]
        case "genai-bench":
            prompts = [_keyed(key, entry, file) for key, entry in _object(text, file).items()]
    if not prompts:
        raise ValueError(f"{file} holds no prompts")
    return PromptSet(layout, tuple(prompts), samples, hashlib.sha256(content).hexdigest())


def image_seeds(seed: int, numbers: Sequence[int]) -> list[int]:
    """The seeds of images of a set by their numbers; different set seeds give unrelated image seeds."""
    first = int(random_bits(seed, _STREAM, np.zeros(1, dtype=np.int64))[0] >> np.uint64(2))
    return [first + number for number in numbers]


def draw_prompt_set(
    prompts: PromptSet,
    folder: Path,
    draw: Draw,
    *,
    seed: int,
    batch_size: int,
    settings: Mapping[str, Any],
    advance: Callable[[int, int], None] | None = None,
) -> int:
    """Generate the missing images of a set.

    Each image has its own seed and is written atomically, so an interrupted set ends up the same as an uninterrupted one
    (as far as the images of ``draw`` do not depend on the batch).

    Args:
        prompts: the prompts.
        folder: folder to write to; new, empty, or of an earlier call with the same arguments.
        draw: generates the images.
        seed: seed of the whole set.
        batch_size: images per batch.
        settings: all other settings that images depend on, as JSON values.
        advance: called with the number of existing images and the total.

    Returns:
        Number of images generated by this call.

    Raises:
        ValueError: the folder holds images of other settings, or other files.
    """
    claim_folder(
        folder,
        {"layout": prompts.layout, "prompts": prompts.digest, "samples": prompts.samples, "seed": seed, **settings},
    )
    if prompts.layout == "geneval":
        for prompt in prompts.prompts:
            write_text(folder / prompt.key / "metadata.jsonl", prompt.extra + "\n")
    missing = prompts.missing(folder)
    for start in range(0, len(missing), batch_size):
        numbers = missing[start : start + batch_size]
        texts = [prompts.prompt(number).text for number in numbers]
        for number, image in zip(numbers, draw(texts, image_seeds(seed, numbers)), strict=True):
            save_image(image, prompts.image(folder, number))
        if advance is not None:
            advance(len(prompts) - len(missing) + start + len(numbers), len(prompts))
    return len(missing)


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a set into its folder, or compare them with those found there.

    Raises:
        ValueError: they differ, or the folder is not empty and has none.
    """
    file, wanted = folder / SETTINGS, json.loads(json.dumps(settings))
    if not file.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder} holds other files: choose a new or empty folder")
        write_text(file, json.dumps(wanted, indent=1) + "\n")
        return
    try:
        found = dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} cannot be read ({error}): choose another folder") from error
    for name in {**wanted, **found}:
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f"{folder} holds images of other settings, {name} is {found.get(name)} there and {wanted.get(name)} now: "
                "choose another folder"
            )


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG or, depending on the suffix, a JPEG of quality 95 without chroma subsampling; the write is atomic."""
    with atomic_file(path) as unfinished:
        if path.suffix == ".jpeg":
            image.save(unfinished, "JPEG", quality=95, subsampling=0)
        else:
            image.save(unfinished, "PNG")


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _lines(text: str) -> list[str]:
    """Split at newlines only, not at other Unicode line ends, which prompts may contain."""
    return [line.strip() for line in text.rstrip().split("\n")] if text.strip() else []


def _plain(line: str, index: int, file: Path) -> Prompt:
    if not line:
        raise ValueError(f"{file}: line {index + 1} is empty, a prompt is expected")
    return Prompt(f"{index:05d}", line)


def _geneval(line: str, index: int, file: Path) -> Prompt:
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    place = f"line {index + 1}"
    _text(fields, "tag", place, file)  # without it the scorer fails, after all images have been generated
    return Prompt(f"{index:05d}", _text(fields, "prompt", place, file), extra=line)


def _keyed(key: str, fields: Any, file: Path, folder: str | None = None) -> Prompt:
    text, extra = _text(fields, "prompt", f"key {key}", file), ""
    if folder is not None:
        extra = _text(fields, folder, f"key {key}", file)
    for name in (key, *([extra] if folder else [])):
        if not re.fullmatch(r"[\w-][\w.-]*", name):
            raise ValueError(
                f"{file}: key {key} gives {name!r}, which cannot name a file (only letters, digits, -, _ and . can)"
            )
    return Prompt(key, text, extra)


def _object(text: str, file: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{file} must hold a JSON object with an entry for each prompt, it holds a {type(found).__name__}"
        )
    return found


def _text(fields: Any, name: str, place: str, file: Path) -> str:
    found = fields.get(name) if isinstance(fields, dict) else None
    if not isinstance(found, str) or not found.strip():
        raise ValueError(f"{file}: {place} must be a JSON object with a text under {name!r}")
    return found.strip()
