"""The part of the feeds that runs in worker processes: reads, decodes and fits images, and replaces bad ones.

Workers exchange numpy arrays rather than tensors, which would use /dev/shm, tiny in many containers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from semhitok.data.images import ImageError
from semhitok.data.randomness import random_integers
from semhitok.data.sample import ImageSource
from semhitok.data.transforms import fit_image, to_array
from semhitok.data.workers import outlive_signals
from semhitok.storage.objects import at_once
from semhitok.types import FitMode

_ATTEMPTS = 32
# Random streams of the replacements, distinct from the epochs (0, 1, ...) and the augmentations (-1, -2, ...).
_REPLACEMENT_STREAM = -1000


@dataclass(frozen=True)
class Fitted:
    """One image: its sample index, (3,H,W) uint8, and its caption, if it has one."""

    index: int
    image: np.ndarray
    caption: str | None


@dataclass(frozen=True)
class Decoded:
    """Some images of one size.

    Attributes:
        images: (B,3,H,W) uint8.
        indices: (B,) int64 sample index of each.
        bad: (index, reason) of the samples that could not be read.
        captions: caption of each image, or None.
    """

    images: np.ndarray
    indices: np.ndarray
    bad: list[tuple[int, str]]
    captions: list[str | None]

    @classmethod
    def of(cls, read: Sequence[Fitted], bad: list[tuple[int, str]], height: int, width: int) -> Decoded:
        """From single images."""
        images = np.empty((len(read), 3, height, width), dtype=np.uint8)
        for row, fitted in zip(images, read, strict=True):
            row[:] = fitted.image
        indices = np.array([fitted.index for fitted in read], dtype=np.int64)
        return cls(images, indices, bad, [fitted.caption for fitted in read])


class FittedImages(Dataset):
    """Images of a source by index, fitted to a size; bad ones are skipped.

    A source that ``waits_for_network`` is asked for all images of a batch at once.
    """

    def __init__(self, source: ImageSource, height: int, width: int, mode: FitMode) -> None:
        self.source = source
        self.height = height
        self.width = width
        self.mode: FitMode = mode

    def read(self, index: int) -> Fitted:
        """Read one image; raises ``ImageError``."""
        sample = self.source.load(index)
        image = to_array(fit_image(sample.image, self.height, self.width, self.mode))
        return Fitted(index, image, str(sample.metadata.get("caption") or "").strip() or None)

    def read_many(self, indices: Sequence[int]) -> Iterable[Fitted | ImageError]:
        """Each image, or what is wrong with it, in order."""
        if getattr(self.source, "waits_for_network", False):
            return at_once([partial(self._attempt, index) for index in indices])
        return map(self._attempt, indices)

    def _attempt(self, index: int) -> Fitted | ImageError:
        try:
            return self.read(index)
        except ImageError as error:
            return error

    def __getitems__(self, indices: Sequence[int]) -> Decoded:
        read, bad = [], []
        for index, found in zip(indices, self.read_many(indices), strict=True):
            if isinstance(found, ImageError):
                bad.append((index, str(found)))
            else:
                read.append(found)
        return Decoded.of(read, bad, self.height, self.width)


class ReplacedImages(Dataset):
    """Images by (position, index); a bad one is replaced by another that depends only on (seed, position).

    After 32 bad images in a row the position is skipped, which the feed reports as an error.
    """

    def __init__(self, images: FittedImages, seed: int) -> None:
        self.images = images
        self.seed = seed

    def __getitems__(self, places: Sequence[tuple[int, int]]) -> Decoded:
        read, bad = [], []
        found = self.images.read_many([index for _, index in places])
        for (position, index), first in zip(places, found, strict=True):
            image = first
            for attempt in range(_ATTEMPTS):
                if not isinstance(image, ImageError):
                    read.append(image)
                    break
                bad.append((index, str(image)))
                index = self._other(position, attempt)
                if attempt < _ATTEMPTS - 1:
                    (image,) = self.images.read_many([index])
        return Decoded.of(read, bad, self.images.height, self.images.width)

    def _other(self, position: int, attempt: int) -> int:
        stream, length = _REPLACEMENT_STREAM - attempt, len(self.images.source)
        return int(random_integers(self.seed, stream, np.array([position]), length)[0])


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decoding_loader(
    dataset: FittedImages | ReplacedImages, batches: Iterable[Sequence[Any]], workers: int
) -> DataLoader[Any]:
    """A loader of ``Decoded`` for each batch of items, in order, with ``workers`` processes (0: in this one).

    The number of processes is limited to the CPUs available to this one.
    """
    workers = min(workers, available_cpus())
    return DataLoader(
        dataset,
        batch_sampler=batches,  # pyright: ignore[reportArgumentType]  any iterable of lists is accepted, even an endless one
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=outlive_signals,
        prefetch_factor=4 if workers else None,
        # Its own generator, because the default would consume the global one, which training seeds.
        generator=torch.Generator(),
    )


def _as_it_is(decoded: Any) -> Any:
    return decoded
