"""rFID of a tokenizer over any number of processes: images are divided among the ranks, and the figure does not depend on how many.

Batches have fixed places, so an image is always computed beside the same neighbours; the main rank takes the features of all ranks
in the order of the images. The reference is the images that the tokenizer was given: cropped and resized alike.

Shapes: B images, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from semhitok import distributed
from semhitok.data.reading import BadImage, SizedBatch, SizedImages, evenly_spaced
from semhitok.data.sample import ImageSource, Sample
from semhitok.data.transforms import to_float
from semhitok.metrics.frechet import FeatureExtractor, FeatureStatistics, Protocol, frechet_distance
from semhitok.storage.atomic import atomic_file
from semhitok.tokenizers.protocol import ImageTokenizer

CROPS = {
    "centre": "shorter side resized (bicubic, antialiased), centre kept",
    "adm": "halved by averaging while twice as large, bicubic, centre kept (ADM)",
}
"""How an image becomes a square."""


@dataclass(frozen=True)
class RFID:
    """A figure with all that it depends on.

    Attributes:
        name: of the distance: rFID, rFID (ADM), rFID (clean-fid).
        distance: the figure.
        images: how many were compared.
        protocol: network, weights and resizing.
        crop: how images became squares.
        image_size: side of the squares in pixels.
        reference: whether its statistics were ``computed`` or ``cached``.
        bad: images that could not be read, which are left out.
    """

    name: str
    distance: float
    images: int
    protocol: str
    crop: str
    image_size: int
    reference: str
    bad: int

    def sentence(self) -> str:
        """The figure and its conditions in one line."""
        left_out = f", {self.bad} unreadable ones left out" if self.bad else ""
        return (
            f"{self.name} {self.distance:.4f} on {self.images:,} images of {self.image_size} px{left_out} ({self.protocol}; "
            f"crop: {self.crop}; reference statistics {self.reference})"
        )


@torch.no_grad()
def measure_rfid(
    model: ImageTokenizer,
    source: ImageSource,
    extractor: FeatureExtractor,
    *,
    protocol: Protocol = "torch-fidelity",
    limit: int | None = None,
    batch_size: int = 32,
    cache: Path | None = None,
    max_bad_share: float = 0.05,
    progress: Callable[[str, int, int], None] | None = None,
) -> RFID:
    """Fréchet distance between the cropped images and their reconstructions. A collective.

    Args:
        model: the tokenizer; it is put into eval mode.
        source: the images, the same on every rank.
        extractor: from ``inception_features`` with the same ``protocol``.
        protocol: ``adm`` crops as ADM's evaluation does, the others as this package does everywhere else.
        limit: at most this many images, evenly spaced.
        batch_size: images at a time on each rank; other sizes may change the last digits of features.
        cache: folder for the statistics of the reference, shared by all ranks; None keeps none.
        max_bad_share: a larger share of bad images is an error.
        progress: called after every round of batches.

    Raises:
        ValueError: fewer than two images could be read, or too many are bad, or the cached statistics are of other images.
    """
    if isinstance(model, nn.Module):
        model.eval()
    crop, size = "adm" if protocol == "adm" else "centre", model.config.image_size
    indices = evenly_spaced(len(source), limit)
    condition = {"source": source.fingerprint, "images": len(indices), "crop": crop, "size": size}
    path = None if cache is None else _cache_file(cache, condition | {"protocol": extractor.protocol})
    known = _Statistics.load(path)
    batches = -(-len(indices) // batch_size)
    rounds = -(-batches // distributed.world_size())
    part = _Part(source, _of_rank(indices, batch_size), size if crop == "adm" else None)
    sized = SizedImages(part, size, batch_size=batch_size, max_bad_share=1.0)
    originals, reconstructions = FeatureStatistics(), FeatureStatistics()
    for done, batch in enumerate(_rounds(sized, rounds), start=1):
        found = None if batch is None else _features(model, batch, extractor, only_reconstructions=known is not None)
        for original, reconstruction in filter(None, distributed.gather_values(found)):
            if distributed.is_main():
                reconstructions.update(reconstruction)
                if original is not None:
                    originals.update(original)
        if progress is not None:
            progress("images", min(done * distributed.world_size() * batch_size, len(indices)), len(indices))
    bad: list[BadImage] = [image for of_rank in distributed.gather_values(sized.bad) for image in of_rank]
    if len(bad) > max_bad_share * len(indices):
        raise ValueError(
            f"{len(bad)} of {len(indices)} images are bad, more than the accepted share of {max_bad_share:.0%}; the first: "
            f"{bad[0].reason}"
        )
    distance, images = _distance(known, originals, reconstructions, path)
    reference = "computed" if known is None else "cached"
    return RFID(extractor.name, distance, images, extractor.protocol, CROPS[crop], size, reference, len(bad))


@dataclass(frozen=True)
class _Statistics:
    """Mean (D,), covariance (D,D), both fp64, and the number of images."""

    mean_D: Tensor
    covariance_DD: Tensor
    count: int

    @classmethod
    def load(cls, path: Path | None) -> _Statistics | None:
        """Those in a file, if the main rank can read it. A collective."""
        found: list[_Statistics] = []

        def read() -> int:
            try:
                tensors = load_file(path) if path is not None else {}
                found.append(cls(tensors["mean"], tensors["covariance"], int(tensors["count"])))
            except (OSError, KeyError, SafetensorError):
                return 0
            return 1

        if not distributed.main_decides(read):
            return None
        return found[0] if found else cls(torch.zeros(0), torch.zeros(0, 0), 0)

    def save(self, path: Path) -> None:
        with atomic_file(path) as unfinished:
            tensors = {"mean": self.mean_D, "covariance": self.covariance_DD, "count": torch.tensor(self.count)}
            save_file(tensors, unfinished)


def _distance(
    known: _Statistics | None, originals: FeatureStatistics, reconstructions: FeatureStatistics, path: Path | None
) -> tuple[float, int]:
    """The distance and the number of images, on every rank."""

    def compute() -> str:
        reference = known or _Statistics(originals.mean_D, originals.covariance, originals.count)
        if reference.count != reconstructions.count:
            raise ValueError(
                f"the statistics of the reference in {path} are of {reference.count} images, but {reconstructions.count} could "
                f"be read: delete that file"
            )
        if known is None and path is not None:
            reference.save(path)
        distance = frechet_distance(
            reference.mean_D, reference.covariance_DD, reconstructions.mean_D, reconstructions.covariance
        )
        return json.dumps([distance, reference.count])

    distance, images = json.loads(distributed.main_tells(compute))
    return distance, images


class _Part:
    """The images of one rank, cropped as ADM does if a size is given."""

    def __init__(self, source: ImageSource, indices: list[int], adm_size: int | None) -> None:
        self.source, self.indices, self.adm_size = source, indices, adm_size
        self.fingerprint = source.fingerprint

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, index: int) -> str:
        return self.source.key(self.indices[index])

    def load(self, index: int) -> Sample:
        sample = self.source.load(self.indices[index])
        if self.adm_size is None:
            return sample
        return Sample(adm_crop(sample.image, self.adm_size), sample.key, sample.metadata)


def adm_crop(image: Image.Image, size: int) -> Image.Image:
    """The square that ADM's evaluation compares: halved by averaging while at least twice as large, then bicubic, centre kept."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _of_rank(indices: list[int], batch_size: int) -> list[int]:
    """This rank's images: every ``world_size``-th batch."""
    step = distributed.world_size() * batch_size
    starts = range(distributed.rank() * batch_size, len(indices), step)
    return [index for start in starts for index in indices[start : start + batch_size]]


def _rounds(sized: SizedImages, rounds: int) -> Iterator[SizedBatch | None]:
    """A batch of this rank for each round, or None where it has no readable image."""
    number = 0
    for batch in sized:
        while number < batch.positions[0] // sized.batch_size:
            number += 1
            yield None
        number += 1
        yield batch
    yield from [None] * (rounds - number)


def _features(
    model: ImageTokenizer, batch: SizedBatch, extractor: FeatureExtractor, *, only_reconstructions: bool
) -> tuple[Tensor | None, Tensor]:
    """Features (B,D) of the images, unless they are known, and of their reconstructions."""
    device, dtype = getattr(model, "device", "cpu"), getattr(model, "dtype", torch.float32)
    pixel_values = to_float(batch.images.to(device)).to(dtype)
    encoded = model.encode(pixel_values)
    reconstructions = model.decode(encoded.ids, encoded.grid).float()
    if reconstructions.shape != pixel_values.shape:
        size = tuple(pixel_values.shape[-2:])
        reconstructions = F.interpolate(reconstructions, size, mode="bicubic", antialias=True).clamp(-1, 1)
    originals = None if only_reconstructions else extractor.extract(pixel_values.float()).cpu()
    return originals, extractor.extract(reconstructions).cpu()


def _cache_file(folder: Path, condition: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(condition, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{digest}.safetensors"
