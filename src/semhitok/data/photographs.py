"""Test photographs bundled with scikit-image and scikit-learn, which are never used in scenes."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from semhitok.data.images import load_image
from semhitok.data.sample import Sample, digest_of_lines


@dataclass(frozen=True)
class _Known:
    package: str
    path: str
    caption: str
    licence: str
    author: str


_KNOWN = (
    _Known("skimage", "data/astronaut.png", "an astronaut in an orange suit", "public domain", "NASA"),
    _Known("skimage", "data/chelsea.png", "the face of a tabby cat", "CC0-1.0", "Stefan van der Walt"),
    _Known("skimage", "data/coffee.png", "a cup of coffee on a wooden table", "CC0-1.0", "Rachel Michetti"),
    _Known("skimage", "data/hubble_deep_field.jpg", "galaxies in the dark sky", "public domain", "NASA and ESA"),
    _Known("skimage", "data/rocket.jpg", "a rocket on its launch pad", "CC0-1.0", "SpaceX"),
    _Known("sklearn", "datasets/images/china.jpg", "a temple in China", "CC-BY-2.0", "danielbuechele"),
    _Known("sklearn", "datasets/images/flower.jpg", "an orange flower", "CC-BY-2.0", "vultilion"),
)


class Photographs:
    """An ``ImageSource`` of the bundled photographs; their metadata are caption, licence and author.

    Args:
        known: path and metadata of each photograph.
    """

    def __init__(self, known: tuple[tuple[Path, dict[str, str]], ...]) -> None:
        self._known = known

    @property
    def fingerprint(self) -> str:
        """See ``ImageSource``."""
        return digest_of_lines(f"{path.name} {path.stat().st_size}" for path, _ in self._known)

    def __len__(self) -> int:
        return len(self._known)

    def key(self, index: int) -> str:
        """See ``ImageSource``."""
        return self._known[index][0].stem

    def load(self, index: int) -> Sample:
        """See ``ImageSource``."""
        path, metadata = self._known[index]
        return Sample(load_image(path), path.stem, dict(metadata))

    def path(self, index: int) -> Path:
        """The file inside the installed package."""
        return self._known[index][0]

    def images(self) -> dict[str, Image.Image]:
        """All photographs, RGB, by name."""
        return {self.key(index): self.load(index).image for index in range(len(self))}


def photographs() -> Photographs:
    """The bundled photographs of the installed packages.

    Raises:
        ValueError: neither scikit-image nor scikit-learn is installed.
    """
    found = []
    for known in _KNOWN:
        folder = _package_folder(known.package)
        if folder is not None and (folder / known.path).is_file():
            metadata = {"caption": known.caption, "licence": known.licence, "author": known.author}
            found.append((folder / known.path, metadata))
    if not found:
        raise ValueError(
            "The test photographs come with scikit-image and scikit-learn: pip install 'semhitok[evaluation]'."
        )
    return Photographs(tuple(found))


def _package_folder(name: str) -> Path | None:
    """Folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None
