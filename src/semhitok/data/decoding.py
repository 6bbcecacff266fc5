"""The part of the feeds that runs in worker processes: read, decode, fit, and get around bad images.

Workers exchange numpy arrays, not tensors: tensors would travel through /dev/shm, which is tiny in many containers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from semhitok.data.images import ImageError
from semhitok.data.randomness import random_integers
from semhitok.data.sample import ImageSource
from semhitok.data.transforms import fit_image, to_array
from semhitok.data.workers import outlive_signals
from semhitok.types import FitMode

_ATTEMPTS = 32
# Streams of randomness of the replacements: far from the epochs (0, 1, ...) and the augmentations (-1, -2, ...).
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
        captions: of each image, None for one without.
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
    """Images of a source by index, fitted to a size; bad ones are left out."""

    def __init__(self, source: ImageSource, height: int, width: int, mode: FitMode) -> None:
        self.source = source
        self.height = height
        self.width = width
        self.mode: FitMode = mode

    def read(self, index: int) -> Fitted:
        """One of them; raises ``ImageError``."""
        sample = self.source.load(index)
        image = to_array(fit_image(sample.image, self.height, self.width, self.mode))
        return Fitted(index, image, str(sample.metadata.get("caption") or "").strip() or None)

    def __getitems__(self, indices: Sequence[int]) -> Decoded:
        read, bad = [], []
        for index in indices:
            try:
                read.append(self.read(index))
            except ImageError as error:
                bad.append((index, str(error)))
        return Decoded.of(read, bad, self.height, self.width)


class ReplacedImages(Dataset):
    """Images by (position, index); a bad one is replaced by another that (seed, position) alone determines.

    Where 32 in a row are bad the position is left out, which the feed takes as an error.
    """

    def __init__(self, images: FittedImages, seed: int) -> None:
        self.images = images
        self.seed = seed

    def __getitems__(self, places: Sequence[tuple[int, int]]) -> Decoded:
        read, bad = [], []
        for position, index in places:
            for attempt in range(_ATTEMPTS):
                try:
                    read.append(self.images.read(index))
                    break
                except ImageError as error:
                    bad.append((index, str(error)))
                    index = self._other(position, attempt)
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
    """``Decoded`` for each batch of items asked for, in that order, by ``workers`` processes (0: in this one).

    No more processes than CPUs that this one may use.
    """
    workers = min(workers, available_cpus())
    return DataLoader(
        dataset,
        batch_sampler=batches,  # pyright: ignore[reportArgumentType]  any iterable of lists will do, endless too
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=outlive_signals,
        prefetch_factor=4 if workers else None,
        # One of its own, or each loader would draw from the global generator that training saves and restores.
        generator=torch.Generator(),
    )


def _as_it_is(decoded: Any) -> Any:
    return decoded
