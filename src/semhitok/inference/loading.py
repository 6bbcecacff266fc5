"""What the commands work on: a tokenizer, its image processor, and the pictures named on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from semhitok.data.images import IMAGE_SUFFIXES, load_image
from semhitok.data.sample import ImageSource, Sample, digest_of_lines
from semhitok.data.sources import open_source
from semhitok.tokenizers import TokenizerImageProcessor
from semhitok.tokenizers.checkpoints import stage_is_finished
from semhitok.tokenizers.loading import load_tokenizer as load_checkpoint
from semhitok.tokenizers.protocol import Tokenizer
from semhitok.tokenizers.registry import TOKENIZERS, tokenizer_kind
from semhitok.types import LANGUAGE_STAGES

SHIPPED = "nano"


def newest_model(place: Path) -> Path | None:
    """The model of the last finished stage of a run, or of one of its stages' folders; ``place`` itself if it is a model.

    None if it is neither. A stage that was interrupted has a model, too; only a finished one says so.
    """
    if (place / "config.json").is_file():
        return place
    kinds = [*(tokenizer_kind(model_type).stages for model_type in TOKENIZERS), LANGUAGE_STAGES]
    if any(stage_is_finished(place, stage) for stages in kinds for stage in stages):
        return place / "model"
    # From the first to the last; a run of a single stage has no folders of stages.
    in_order = [stage for stages in kinds if len(stages) > 1 for stage in stages]
    return next(
        (place / stage / "model" for stage in reversed(in_order) if stage_is_finished(place / stage, stage)), None
    )


def choose_device(name: str | None) -> torch.device:
    """The named device; by default a GPU where there is one.

    Raises:
        ValueError: torch knows no such device, or this machine has none.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"there is no device {name!r}: cpu, cuda or cuda:1 are accepted") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name} was asked for, but {torch.cuda.device_count()} GPUs were found; use --device cpu"
        )
    return device


def load_tokenizer(name: str | Path, device: str | None, *, encoder: bool = True) -> Tokenizer:
    """The model in eval mode on the device, in float32; of a training run the model of its last finished stage.

    Of any registered kind, as the checkpoint says.

    Raises:
        ValueError: no such checkpoint, of another class, damaged, or with keys that do not fit.
    """
    chosen = choose_device(device)
    try:
        model = load_checkpoint(_place_of(name), encoder=encoder)
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the checkpoint {name} is damaged ({error}); fetch or export it again") from error
    model.eval().to(chosen)  # pyright: ignore[reportArgumentType]
    return model


def load_processor(name: str | Path, model: Tokenizer) -> Any:
    """What a checkpoint prepares its inputs with; with a text tokenizer where the model has a text tower.

    Raises:
        ValueError: the text tokenizer is missing or damaged.
    """
    try:
        return model.load_processor(_place_of(name))
    # The tokenizers library raises a bare Exception for a damaged file.
    except Exception as error:
        raise ValueError(f"the text tokenizer of {name} cannot be loaded: {error}") from error


def image_processor(model: Tokenizer) -> TokenizerImageProcessor:
    """The processor for the model's default size."""
    return TokenizerImageProcessor(size=model.config.image_size)


def image_files(paths: tuple[Path, ...]) -> list[Path]:
    """Files as they are, folders replaced by the pictures in them, by their endings; hidden files are left out.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: nothing is left.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
        found.extend(_pictures_in(path) if path.is_dir() else [path])
    if not found:
        raise ValueError(f"no pictures in {', '.join(map(str, paths))} (endings such as .jpg, .png, .webp)")
    return found


def open_images(paths: tuple[Path, ...]) -> ImageSource:
    """The pictures of one data set (folder with subfolders, tars ...), or of several files and folders.

    Raises:
        ValueError, FileNotFoundError: nothing there, or nothing that holds pictures.
    """
    if len(paths) == 1 and (paths[0].is_dir() or paths[0].suffix in (".tar", ".parquet")):
        return open_source(paths[0])
    return ImageFiles(image_files(paths))


class ImageFiles:
    """Files named one by one, as an ``ImageSource``."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    @property
    def fingerprint(self) -> str:
        """See ``ImageSource``."""
        return digest_of_lines(f"{file} {file.stat().st_size}" for file in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def key(self, index: int) -> str:
        """See ``ImageSource``."""
        return str(self.files[index])

    def load(self, index: int) -> Sample:
        """See ``ImageSource``."""
        return Sample(image=load_image(self.files[index]), key=self.key(index))


def _place_of(name: str | Path) -> str:
    """The model's folder of a run; a str, which keeps hub ids and shipped names apart from folders."""
    return str(newest_model(Path(name)) or name)


def _pictures_in(folder: Path) -> list[Path]:
    entries = sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    return [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES]
