"""Batches of packed rows for the training loop: ids, labels, positions, and the images or their ids.

Shapes: B rows, R positions of a row, K images at most in a row, M images at most to be tokenized in a row, N tokens of an image,
C codes per token, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from semhitok.data.decoding import decoding_loader
from semhitok.data.feed import Batch
from semhitok.data.images import ImageError
from semhitok.data.packing import IGNORED, PackedRows, TokenSequence
from semhitok.data.sample import digest_of_lines
from semhitok.data.transforms import fit_image, to_array
from semhitok.transfer import to_device
from semhitok.types import FitMode

INPUT_IDS, LABELS, POSITION_IDS = "input_ids", "labels", "position_ids"
IMAGE_IDS = "image_ids"
BAD_RECORDS, LEFT_OUT = "bad_records", "left_out"
# Values in place of an image's first id: the image is among the batch's pixels, or there is no image.
FROM_PIXELS, NO_IMAGE = -1, -2


@dataclass(frozen=True)
class RowFormat:
    """Format of packed rows.

    Attributes:
        image_size: H = W of images to be tokenized.
        image_shape: (N,) or (N,C), the shape of an image's ids.
        pad_id: id that fills the end of rows.
        fit: how images are made square.
    """

    image_size: int
    image_shape: tuple[int, ...]
    pad_id: int
    fit: FitMode = "crop"


@dataclass(frozen=True)
class _Rows:
    """Rows as arrays, since torch tensors would be sent between processes via /dev/shm, which is tiny in containers."""

    arrays: dict[str, np.ndarray]
    images: np.ndarray
    bad: list[tuple[str, str]]
    read: int


class PackedFeed:
    """A ``Feed`` of packed rows; its batch size counts rows.



    ``extras`` of a batch has ``input_ids``, ``labels`` (not shifted) and ``position_ids`` (B,R), which restart with every sequence
    and with the padding; ``image_ids`` (B,K,N) or (B,K,N,C), in order within a row, whose first id is -1 if the image is to be
    tokenized and -2 if there is none; and the counts ``bad_records`` and ``left_out`` (B). ``images_BCHW`` is (B,M,3,H,W): the
    images of each row to be tokenized, in order.

    A record whose image cannot be read is removed from its row and listed with the reason in ``bad``.

    Args:
        rows: the packed rows.
        form: see ``RowFormat``.
        device: device of the batches.
        workers: number of reader processes; 0 reads in this one.
        max_bad_share: tolerated fraction of bad records among those read (counting at least 1,000).
    """

    def __init__(
        self,
        rows: PackedRows,
        form: RowFormat,
        *,
        device: torch.device | str = "cpu",
        workers: int = 0,
        max_bad_share: float = 0.05,
    ) -> None:
        self._rows, self._form, self._device = rows, form, torch.device(device)
        self._workers, self._max_bad_share = workers, max_bad_share
        self.bad: dict[str, str] = {}
        """Reasons by name of the records that this rank could not use so far."""

    @property
    def fingerprint(self) -> str:
        """See ``Feed``."""
        rows = self._rows
        numbers = (rows.row_length, rows.block_rows, rows.records_per_block, self._form.image_size)
        return digest_of_lines([rows.mixture.fingerprint, *map(str, numbers)])

    def __len__(self) -> int:
        """Number of rows in which every record occurs about once."""

        return len(self._rows)

    def batches(self, start: int, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """See ``Feed``."""
        if start < 0 or batch_size < 1 or batch_size % world or not 0 <= rank < world:
            raise ValueError(f"a batch of {batch_size} from {start} cannot be divided for rank {rank} of {world}.")
        read = bad = 0
        loader = decoding_loader(
            _RowReader(self._rows, self._form),  # pyright: ignore[reportArgumentType]
            _own_rows(start, batch_size, rank, world),
            self._workers,
        )
        for found in loader:
            read, bad = read + found.read, bad + len(found.bad)
            self.bad.update(found.bad)
            if bad > self._max_bad_share * max(read, 1000):
                first = next(iter(self.bad.values()))
                count = f"{bad} of {read}, {self._max_bad_share:.0%} are accepted"
                raise ValueError(f"too many records cannot be used ({count}); the first: {first}")
            extras = {name: to_device(torch.from_numpy(array), self._device) for name, array in found.arrays.items()}
            size = len(found.images)
            yield Batch(
                images_BCHW=to_device(torch.from_numpy(found.images), self._device),
                indices_B=torch.zeros(size, dtype=torch.long, device=self._device),
                flipped_B=torch.zeros(size, dtype=torch.bool, device=self._device),
                extras=extras,
            )


class _RowReader(Dataset):
    """Rows by number, as arrays."""

    def __init__(self, rows: PackedRows, form: RowFormat) -> None:
        self.rows, self.form = rows, form

    def __getitems__(self, numbers: Sequence[int]) -> _Rows:
        rows, bad, read = [], [], 0
        counts = np.zeros((2, len(numbers)), dtype=np.int64)
        for place, number in enumerate(numbers):
            block = self.rows.block(number // self.rows.block_rows)
            within = number % self.rows.block_rows
            found, unreadable = self._with_images(block.rows[within])
            if within == 0:  # count each block once
                bad += block.bad
                read += block.read
                counts[:, place] = len(block.bad), block.left_out
            bad += unreadable
            counts[0, place] += len(unreadable)
            rows.append(found)
        arrays, images = self._arrays(rows)
        return _Rows(arrays | {BAD_RECORDS: counts[0], LEFT_OUT: counts[1]}, images, bad, read)

    def _with_images(
        self, row: list[TokenSequence]
    ) -> tuple[list[tuple[TokenSequence, list[np.ndarray]]], list[tuple[str, str]]]:
        """The row's sequences with pixels (3,H,W) or ids of their images, without those that have bad images."""
        kept, bad, side = [], [], self.form.image_size
        for sequence in row:
            name, images = "", []
            try:
                for picture in sequence.pictures:
                    name = picture.name
                    if picture.ids is not None:
                        images.append(picture.ids)
                        continue
                    images.append(to_array(fit_image(picture.load(), side, side, self.form.fit)))
                kept.append((sequence, images))
            except (ImageError, OSError) as error:
                bad.append((name, str(error)))
        return kept, bad

    def _arrays(
        self, rows: list[list[tuple[TokenSequence, list[np.ndarray]]]]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        form, shape = self.form, (len(rows), self.rows.row_length)
        input_ids, labels = np.full(shape, form.pad_id, dtype=np.int64), np.full(shape, IGNORED, dtype=np.int64)
        position_ids = np.zeros(shape, dtype=np.int64)
        in_order = [[image for _, images in row for image in images] for row in rows]
        pixels = [[image for image in images if image.dtype == np.uint8] for images in in_order]
        image_ids = np.full((len(rows), max(map(len, in_order)), *form.image_shape), NO_IMAGE, dtype=np.int64)
        side = form.image_size
        images = np.zeros((len(rows), max(map(len, pixels)), 3, side, side), dtype=np.uint8)
        for place, row in enumerate(rows):
            begin = 0
            for sequence, _ in row:
                part = slice(begin, begin + len(sequence))
                input_ids[place, part], labels[place, part] = sequence.ids_L, sequence.labels_L
                labels[place, begin] = IGNORED  # must not be predicted by the previous sequence
                position_ids[place, part] = np.arange(len(sequence))
                begin += len(sequence)
            position_ids[place, begin:] = np.arange(shape[1] - begin)
            for index, image in enumerate(in_order[place]):
                image_ids[place, index] = FROM_PIXELS if image.dtype == np.uint8 else image
            for index, image in enumerate(pixels[place]):
                images[place, index] = image
        arrays = {INPUT_IDS: input_ids, LABELS: labels, POSITION_IDS: position_ids, IMAGE_IDS: image_ids}
        return arrays, images


def _own_rows(start: int, batch_size: int, rank: int, world: int) -> Iterator[list[int]]:
    share = batch_size // world
    first = start + rank * share
    while True:
        yield list(range(first, first + share))
        first += batch_size
