"""A tokenizer and its image processor from a name or a folder."""

from __future__ import annotations

from pathlib import Path

import torch

from semhitok.tokenizers import SemHiTokImageProcessor, SemHiTokModel

SHIPPED = "nano"


def choose_device(name: str | None) -> torch.device:
    """The named device; by default a GPU where there is one."""
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name} was asked for, but no GPU was found; use cpu")
    return device


def load_tokenizer(name: str | Path, device: str | None, *, encoder: bool = True) -> SemHiTokModel:
    """The model in eval mode on the device."""
    # A str keeps hub ids and shipped names apart from folders.
    model = SemHiTokModel.from_pretrained(str(name), encoder=encoder)
    return model.eval().to(choose_device(device))


def image_processor(model: SemHiTokModel) -> SemHiTokImageProcessor:
    """The processor for the model's default size."""
    return SemHiTokImageProcessor(size=model.config.image_size)


def image_files(paths: tuple[Path, ...]) -> list[Path]:
    """Files as they are, folders replaced by the files in them; hidden files are left out."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
        inside = sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
        found.extend(entry for entry in inside if not entry.name.startswith("."))
    if not found:
        raise ValueError(f"no files in {', '.join(map(str, paths))}")
    return found
