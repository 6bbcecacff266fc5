"""Endless batches for training, from memory or streamed from disk, with identical order and pixels.

Shapes: N stored images, B images in a batch, C = 3 channels (RGB), H x W pixels.

A position counts samples since the start of the run. The image at a position, flipped or not, is a pure function of (seed,
position), independent of batch size, workers and ranks; a run resumes with ``batches(start)``.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from semhitok.data.block_order import own_or_full_order
from semhitok.data.decoding import Decoded, FittedImages, ReplacedImages, decoding_loader
from semhitok.data.loading import LoadedImages, data_fingerprint, load_into_memory, too_many_bad
from semhitok.data.randomness import SampleOrder
from semhitok.data.sample import ImageSource
from semhitok.data.transforms import flip_images, random_flips, to_float
from semhitok.transfer import to_device
from semhitok.types import FitMode

CaptionReader = Callable[[Sequence[str | None]], Mapping[str, Tensor]]

__all__ = ["Batch", "CaptionReader", "Feed", "LoadedImages", "MemoryFeed", "StreamFeed", "load_into_memory"]


class PerImage(Protocol):
    """Values of each image and variant: a numpy array, or several files that are indexed like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    def __getitem__(self, places: tuple[np.ndarray, np.ndarray], /) -> np.ndarray: ...


@dataclass(frozen=True)
class Batch:
    """Images for one step, on the training device.

    Attributes:
        images_BCHW: uint8, already flipped.
        indices_B: int64 index of each image in the feed's data.
        flipped_B: bool, which images are mirrored.
        extras: precomputed values of each image (cached features, ids ...) by name; (B, ...).
    """

    images_BCHW: Tensor
    indices_B: Tensor
    flipped_B: Tensor
    extras: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.images_BCHW)

    def pixel_values(self) -> Tensor:
        """(B,3,H,W) float32 in [-1,1]."""
        return to_float(self.images_BCHW)

    def split(self, parts: int) -> list[Batch]:
        """Micro-batches of equal size, in order."""
        if parts < 1 or len(self) % parts:
            raise ValueError(f"a batch of {len(self)} images cannot be split into {parts} equal parts.")
        size = len(self) // parts
        return [self._rows(slice(start, start + size)) for start in range(0, len(self), size)]

    def _rows(self, rows: slice) -> Batch:
        extras = {name: value[rows] for name, value in self.extras.items()}
        return Batch(self.images_BCHW[rows], self.indices_B[rows], self.flipped_B[rows], extras)


class Feed(Protocol):
    """Interface of the training loop's batch sources."""

    @property
    def fingerprint(self) -> str:
        """Digest of images, size and fitting; a run resumes only on data with the same fingerprint."""
        ...

    def __len__(self) -> int:
        """Number of images in an epoch."""
        ...

    def batches(self, start: int, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """This rank's share of each global batch, endlessly: batch i covers the positions
        [start + i * batch_size, start + (i + 1) * batch_size), of which rank r takes the r-th of ``world`` equal parts.
        """
        ...


class _Augmentation:
    """Adds flips and extras to a batch whose images are on the device; shared by both feeds."""

    def __init__(
        self, length: int, seed: int, flip: bool, extras: Mapping[str, PerImage] | None, device: torch.device | str
    ) -> None:
        self.seed, self.flip, self.device = seed, flip, torch.device(device)
        self.extras = dict(extras or {})
        for name, array in self.extras.items():
            variants = 2 if flip else 1
            if array.ndim < 2 or array.shape[0] != length or array.shape[1] < variants:
                wanted = f"({length}, {variants}, ...)"
                raise ValueError(f"extra {name!r} has shape {array.shape}, {wanted} is needed: plain, then flipped.")

    def batch(self, images_BCHW: Tensor, indices: np.ndarray, positions: np.ndarray) -> Batch:
        flipped = random_flips(self.seed, positions) if self.flip else np.zeros(len(positions), dtype=bool)
        flipped_B = to_device(torch.from_numpy(flipped), self.device)
        variants = flipped.astype(np.int64)
        extras = {name: np.ascontiguousarray(array[indices, variants]) for name, array in self.extras.items()}
        return Batch(
            images_BCHW=flip_images(images_BCHW, flipped_B) if self.flip else images_BCHW,
            indices_B=to_device(torch.from_numpy(indices), self.device),
            flipped_B=flipped_B,
            extras={name: to_device(torch.from_numpy(array), self.device) for name, array in extras.items()},
        )


class MemoryFeed:
    """Batches of images that are kept in memory on the training device.

    Args:
        images: (N,3,H,W) uint8.
        seed: seed of order and flips.
        flip: mirror half of the images.
        extras: name to (N, variants, ...) array, in memory or memory-mapped: variant 0 belongs to the plain image,


            variant 1 to the flipped one. Values independent of flipping can be repeated by ``np.broadcast_to``.
        device: device of images and batches.
        fingerprint: fingerprint of the data, as in ``LoadedImages``; by default a digest of the pixels.

    Raises:
        ValueError: images or extras have another shape or type.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        seed: int,
        flip: bool = False,
        extras: Mapping[str, PerImage] | None = None,
        device: torch.device | str = "cpu",
        fingerprint: str | None = None,
    ) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ValueError(f"images must be (N,3,H,W) uint8, not {tuple(images.shape)} {images.dtype}.")
        self._order = SampleOrder(len(images), seed)
        self._augmentation = _Augmentation(len(images), seed, flip, extras, device)
        self._fingerprint = fingerprint or hashlib.sha256(images.cpu().contiguous().numpy().data).hexdigest()
        self._images = images.to(device)

    @property
    def fingerprint(self) -> str:
        """See ``Feed``."""
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, start: int, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """See ``Feed``."""
        for positions in _local_positions(start, batch_size, rank, world):
            indices = self._order.indices(int(positions[0]), len(positions))
            images = self._images[to_device(torch.from_numpy(indices), self._images.device)]
            yield self._augmentation.batch(images, indices, positions)


class StreamFeed:
    """Batches read from a source by worker processes during training.

    A bad image is listed in ``bad`` and replaced by another that depends only on (seed, position); too many bad images
    are an error.

    Args:
        source: where the images come from.
        height, width, mode: see ``fit_image``.
        seed, flip, extras, device: as for ``MemoryFeed``; extras are indexed like the source.
        workers: number of reader processes; 0 reads in this one.
        from_captions: turns the captions of a batch (None for images without) into further extras (B, ...).
        max_bad_share: tolerated fraction of bad images among those read (counting at least 1,000 or the whole source).
    """

    def __init__(
        self,
        source: ImageSource,
        height: int,
        width: int,
        *,
        seed: int,
        mode: FitMode = "crop",
        flip: bool = False,
        extras: Mapping[str, PerImage] | None = None,
        device: torch.device | str = "cpu",
        workers: int = 2,
        from_captions: CaptionReader | None = None,
        max_bad_share: float = 0.05,
    ) -> None:
        self._source = source
        self._order = own_or_full_order(source, seed)
        self._images = ReplacedImages(FittedImages(source, height, width, mode), seed)
        self._augmentation = _Augmentation(len(source), seed, flip, extras, device)
        self._fingerprint = data_fingerprint(source, height, width, mode, [])
        self._workers = workers
        self._from_captions = from_captions
        self._max_bad_share = max_bad_share
        self.bad: dict[str, str] = {}
        """Reasons by key of the images that this rank could not read so far."""

    @property
    def fingerprint(self) -> str:
        """See ``Feed``."""
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._source)

    def batches(self, start: int, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """See ``Feed``."""
        read, bad_reads, from_captions = 0, 0, self._from_captions
        # Workers receive positions and indices: their own copy of the order would take 8 bytes per sample each.
        asked, answered = itertools.tee(_local_positions(start, batch_size, rank, world))
        places = (list(zip(p.tolist(), self._order.indices(int(p[0]), len(p)).tolist(), strict=True)) for p in asked)
        loader = decoding_loader(self._images, places, self._workers)
        for decoded, positions in zip(loader, answered, strict=False):
            read, bad_reads = read + len(positions), bad_reads + len(decoded.bad)
            self._report(decoded, read, bad_reads, complete=len(decoded.indices) == len(positions))
            images = to_device(torch.from_numpy(decoded.images), self._augmentation.device)
            batch = self._augmentation.batch(images, decoded.indices, positions)
            if from_captions is not None:
                found = from_captions(decoded.captions)
                batch.extras.update({name: to_device(value, images.device) for name, value in found.items()})
            yield batch

    def _report(self, decoded: Decoded, read: int, bad_reads: int, complete: bool) -> None:
        self.bad.update((self._source.key(index), reason) for index, reason in decoded.bad)
        # A bad image in the first batch is no evidence yet.
        accepted = self._max_bad_share * max(read, min(1000, len(self._source)))
        if bad_reads > accepted or not complete:
            raise too_many_bad(bad_reads, read + bad_reads, self._max_bad_share, next(iter(self.bad.values())))


def _local_positions(start: int, batch_size: int, rank: int, world: int) -> Iterator[np.ndarray]:
    if start < 0 or batch_size < 1 or batch_size % world or not 0 <= rank < world:
        raise ValueError(f"a batch of {batch_size} from {start} cannot be divided for rank {rank} of {world}.")
    share = batch_size // world
    first = start + rank * share
    while True:
        yield np.arange(first, first + share, dtype=np.int64)
        first += batch_size
