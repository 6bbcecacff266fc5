"""Loading a whole source into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semhitok.data.decoding import FittedImages, decoding_loader
from semhitok.data.sample import ImageSource, digest_of_lines
from semhitok.types import FitMode


@dataclass(frozen=True)
class LoadedImages:
    """The images of a source in memory.

    Attributes:
        images: (N,3,H,W) uint8.
        bad: (key, reason) of the skipped images.
        captions: caption of each image, or None.
        fingerprint: digest of source, size, fitting and skipped images.
    """

    images: Tensor
    bad: list[tuple[str, str]]
    captions: list[str | None]
    fingerprint: str


def load_into_memory(
    source: ImageSource,
    height: int,
    width: int,
    mode: FitMode = "crop",
    *,
    workers: int = 2,
    max_bad_share: float = 0.05,
    progress: Callable[[int, int], None] | None = None,
) -> LoadedImages:
    """Read all images of a source in its order, skipping bad ones.

    Args:
        source: where the images come from.
        height, width, mode: see ``fit_image``.


        workers: number of reader processes; 0 reads in this one.
        max_bad_share: tolerated fraction of bad images.
        progress: called with (images done, total) during reading.

    Raises:
        ValueError: there are more bad images than tolerated, or no good ones.
    """
    total = len(source)
    images = torch.empty((total, 3, height, width), dtype=torch.uint8)
    bad: list[tuple[int, str]] = []
    captions: list[str | None] = []
    count = 0
    chunks = [list(range(first, min(first + 64, total))) for first in range(0, total, 64)]
    for decoded in decoding_loader(FittedImages(source, height, width, mode), chunks, workers):
        images[count : count + len(decoded.images)] = torch.from_numpy(decoded.images)
        count += len(decoded.images)
        bad.extend(decoded.bad)
        captions.extend(decoded.captions)
        if len(bad) > max_bad_share * total:
            raise too_many_bad(len(bad), total, max_bad_share, bad[0][1])
        if progress:
            progress(count + len(bad), total)
    if not count:
        raise ValueError("there are no images to load.")
    return LoadedImages(
        images=images[:count],
        bad=[(source.key(index), reason) for index, reason in bad],
        captions=captions,
        fingerprint=data_fingerprint(source, height, width, mode, [index for index, _ in bad]),
    )


def data_fingerprint(source: ImageSource, height: int, width: int, mode: FitMode, left_out: Sequence[int]) -> str:
    """Digest of a source's images as used: names and sizes, fitting, and skipped ones."""
    return digest_of_lines([source.fingerprint, f"{height} x {width} {mode}", *(f"without {i}" for i in left_out)])


def too_many_bad(bad: int, read: int, accepted: float, reason: str) -> ValueError:
    """The error for more bad images than tolerated."""
    count = f"{bad} of {read}, {accepted:.0%} are accepted"
    return ValueError(f"too many images cannot be read ({count}); the first: {reason}")
