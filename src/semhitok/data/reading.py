"""The images of a source in batches of one size; bad ones are skipped and counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from semhitok.data.images import ImageError
from semhitok.data.sample import ImageSource
from semhitok.data.transforms import fit_image, to_uint8
from semhitok.types import FitMode

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class BadImage:
    """An image that could not be read, and the reason."""

    key: str
    reason: str


@dataclass(frozen=True)
class SizedBatch:
    """Images (B,3,size,size) uint8, their positions in the reader's ``indices``, and the metadata of each."""

    images: Tensor
    positions: list[int]
    metadata: list[dict[str, Any]]


class SizedImages:
    """Iterates over a source in a fixed order, collecting bad images in ``bad``. Reads one batch ahead.

    Args:
        source: the images.
        size: side in pixels of the squares.
        fit: ``crop`` (shorter side resized, centre kept) or ``resize`` (squeezed).
        limit: read at most this many, evenly spaced, so that a sorted source is represented.
        batch_size: images per batch; batches with bad images are smaller.
        max_bad_share: fraction of bad images above which iteration raises a ``ValueError``.
        threads: number of threads that read and decode.
    """

    def __init__(
        self,
        source: ImageSource,
        size: int,
        *,
        fit: FitMode = "crop",
        limit: int | None = None,
        batch_size: int = 32,
        max_bad_share: float = 0.05,
        threads: int = 4,
    ) -> None:
        self.source, self.size = source, size
        self.fit: FitMode = fit
        self.batch_size, self.max_bad_share, self.threads = batch_size, max_bad_share, threads
        self.indices = evenly_spaced(len(source), limit)
        self.bad: list[BadImage] = []

    def __len__(self) -> int:
        """Number of images to read."""
        return len(self.indices)

    def __iter__(self) -> Iterator[SizedBatch]:
        self.bad = []
        positions = range(len(self.indices))
        reading = in_threads(self._load, positions, threads=self.threads, ahead=self.batch_size)
        for loaded in in_batches(reading, self.batch_size):
            self.bad += [entry for entry in loaded if isinstance(entry, BadImage)]
            if len(self.bad) > self.max_bad_share * len(self.indices):
                raise ValueError(
                    f"{len(self.bad)} of {len(self.indices)} images are bad, more than the accepted share of "
                    f"{self.max_bad_share:.0%}; the first: {self.bad[0].reason}"
                )
            good = [entry for entry in loaded if not isinstance(entry, BadImage)]
            if good:
                kept, images, metadata = zip(*good, strict=True)
                yield SizedBatch(torch.stack(images), list(kept), list(metadata))

    def _load(self, position: int) -> tuple[int, Tensor, dict[str, Any]] | BadImage:
        index = self.indices[position]
        try:
            sample = self.source.load(index)
        except ImageError as error:
            return BadImage(self.source.key(index), str(error))
        return position, to_uint8(fit_image(sample.image, self.size, self.size, self.fit)), sample.metadata


def in_threads(load: Callable[[Item], Found], items: Iterable[Item], *, threads: int, ahead: int) -> Iterator[Found]:
    """The results of ``load`` for each item, in order, computed by threads up to ``ahead`` items in advance.

    An exception of ``load`` is raised in its turn.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Found]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(load, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items, in order; the last one may be shorter."""
    iterator = iter(items)
    return iter(lambda: list(islice(iterator, size)), [])


def evenly_spaced(length: int, limit: int | None) -> list[int]:
    """At most ``limit`` evenly spaced indices below ``length``, from the first to the last; all for None."""
    if limit is None or limit >= length:
        return list(range(length))
    return np.linspace(0, length - 1, limit).round().astype(int).tolist()
