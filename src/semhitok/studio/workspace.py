"""What the studio works on: models, loaded once, example images, and folders of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from semhitok.data.folder import image_files
from semhitok.data.reading import SizedImages
from semhitok.data.sample import ImageSource
from semhitok.data.sources import open_images
from semhitok.inference import DEFAULT_LANGUAGE_MODEL, DEFAULT_TOKENIZER
from semhitok.inference.code_patches import CodePatches, find_patches
from semhitok.inference.loading import load_language_model, load_tokenizer

MODELS_KEPT = 4  # loaded at a time, of each kind
FOLDERS_KEPT = 4  # whose patches are kept
PATCH_IMAGES = 2000  # images of a folder whose patches are looked at, evenly spaced

_PLACES = (Path(__file__).parent / "bundled", Path(__file__).parents[3])


def bundled(name: str) -> Path | None:
    """A folder of the repository that comes with the package, such as ``examples/photographs``; None if it is missing."""
    return next((place / name for place in _PLACES if (place / name).is_dir()), None)


@dataclass(frozen=True)
class PatchIndex:
    """The patches of a folder's images, by semantic code."""

    found: CodePatches
    source: ImageSource


@dataclass(frozen=True)
class Workspace:
    """What a studio shows.

    Attributes:
        tokenizers, language_models: offered for choice; the first is chosen. Others can be named in the page.
        images: folder of example images, None for the bundled photographs and scenes.
        results: folder of results, None for the bundled ones.
        device: see ``distributed.choose_device``.
    """

    tokenizers: Sequence[str] = (DEFAULT_TOKENIZER,)
    language_models: Sequence[str] = (DEFAULT_LANGUAGE_MODEL,)
    images: Path | None = None
    results: Path | None = None
    device: str | None = None
    tokenizer: Callable[[str], Any] = field(init=False)
    """The tokenizer of a name, loaded once."""
    language_model: Callable[[str], tuple[Any, Any]] = field(init=False)
    """The language model of a name and its processor, loaded once."""
    patches: Callable[[str, str], PatchIndex] = field(init=False)
    """The patches of a folder's images for a tokenizer's name; an empty folder stands for the examples."""

    def __post_init__(self) -> None:
        kept = {
            "tokenizer": lru_cache(MODELS_KEPT)(lambda name: load_tokenizer(name, self.device)),
            "language_model": lru_cache(MODELS_KEPT)(lambda name: load_language_model(name, self.device)),
            "patches": lru_cache(FOLDERS_KEPT)(self._find_patches),
        }
        for name, function in kept.items():
            object.__setattr__(self, name, function)

    def photographs(self) -> list[Path]:
        """The example photographs: those of the folder, or the bundled ones."""
        return _images_in([self.images or bundled("examples/photographs")])

    def scenes(self) -> list[Path]:
        """Example images to ask about: those of the folder, or the bundled scenes, which the bundled model knows best."""
        return _images_in([self.images or bundled("examples/scenes") or bundled("examples/photographs")])

    def results_folders(self) -> list[Path]:
        """The folders of results that are shown first: that of the workspace, or the bundled ablations and comparison."""
        if self.results is not None:
            return [self.results]
        folders = [bundled("docs/ablations"), bundled("docs/comparison")]
        return [folder for folder in folders if folder is not None and any(folder.glob("*.json"))]

    def _find_patches(self, name: str, folder: str) -> PatchIndex:
        if folder:
            source = open_images([Path(folder).expanduser()])
        else:
            source = open_images(list(dict.fromkeys([*self.photographs(), *self.scenes()])))
        tokenizer = self.tokenizer(name)
        images = SizedImages(source, tokenizer.config.image_size, limit=PATCH_IMAGES, max_bad_share=0.5)
        return PatchIndex(find_patches(tokenizer, images), source)


def _images_in(folders: list[Path | None]) -> list[Path]:
    there = [folder for folder in folders if folder is not None]
    return list(image_files(there)) if there else []
