"""Images to token ids and back, in batches; the next batch is read while the model works on one.

Shapes: B images of a batch, n squares of one image, N tokens, C codes per token, C = 3 channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from semhitok.data.images import ImageError
from semhitok.data.reading import in_batches, in_threads
from semhitok.data.transforms import TileLayout, to_pil, untile
from semhitok.nn.patches import resize
from semhitok.tokenizers import TokenizerImageProcessor
from semhitok.tokenizers.image_processing import ImageLike
from semhitok.tokenizers.protocol import Tokenizer
from semhitok.types import Encoded, FitMode, FitOrTile

READERS = 4  # threads that read and decode images

OnBadImage = Callable[[ImageLike, ImageError], None]


@dataclass(frozen=True)
class Reconstruction:
    """The reconstruction of one image as n squares: the image itself or its tiles.

    Attributes:
        source: the image as it was passed in.
        ids: (n,N) or (n,N,C) on the CPU.
        originals, copies: (n,3,H,W) in [-1,1] at the size that the tokenizer predicts.
        layout: layout of the tiles, None for an image that was made square.
        tile_size: side in pixels at which squares were cut.
    """

    source: ImageLike
    ids: Tensor
    originals: Tensor
    copies: Tensor
    layout: TileLayout | None
    tile_size: int

    def image(self) -> Image.Image:
        """The reconstruction as an image; tiles are stitched at the size at which they were cut."""
        if self.layout is None:
            return to_pil(self.copies[0])
        return untile([to_pil(tile) for tile in resize(self.copies, self.tile_size, self.tile_size)], self.layout)


@torch.no_grad()
def encode_images(
    tokenizer: Tokenizer,
    images: Iterable[ImageLike],
    *,
    fit: FitMode | None = "crop",
    batch_size: int = 32,
    processor: TokenizerImageProcessor | None = None,
    on_bad: OnBadImage | None = None,
) -> Iterator[Encoded]:
    """Encode images to token ids.

    Args:
        tokenizer: with its encoder side.
        images: paths, bytes, PIL images or uint8 arrays; any iterable, consumed lazily.
        fit: how to make images square: ``crop`` the centre, ``resize`` (squeeze), None for the processor's own setting.
        batch_size: images per batch.
        processor: replaces the one for the tokenizer's default size.
        on_bad: called with each image that cannot be read and its error, in order; the image is skipped, and its batch has a
            row less. By default the error is raised.

    Yields:
        Ids of each batch, (B,N) or (B,N,C), on the CPU.

    Raises:
        ValueError: an unreadable image without ``on_bad``, a tokenizer without its encoder side, or a batch_size below 1.
    """
    for _, pixel_values, _ in _read(images, processor or _processor(tokenizer), fit, batch_size, on_bad):
        encoded = tokenizer.encode(pixel_values.to(tokenizer.device, tokenizer.dtype))
        semantic_ids = None if encoded.semantic_ids is None else encoded.semantic_ids.cpu()
        yield Encoded(encoded.ids.cpu(), encoded.grid, semantic_ids)


@torch.no_grad()
def decode_ids(
    tokenizer: Tokenizer, ids: Tensor, grid: tuple[int, int] | None = None, *, batch_size: int = 32
) -> Iterator[Image.Image]:
    """Decode token ids to images, one after the other.

    Args:
        tokenizer: its encoder side is not needed.
        ids: (B,N) or (B,N,C).
        grid: rows and columns of the tokens; None for a square.
        batch_size: images per batch.

    Raises:
        ValueError: the ids have another shape or are outside the vocabulary, or the grid has another number of tokens.
    """
    for part in ids.split(batch_size):
        yield from map(to_pil, tokenizer.decode(part.to(tokenizer.device), grid))


@torch.no_grad()
def reconstruct_images(
    tokenizer: Tokenizer,
    images: Iterable[ImageLike],
    *,
    fit: FitOrTile = "crop",
    batch_size: int = 32,
    on_bad: OnBadImage | None = None,
) -> Iterator[Reconstruction]:
    """Send images through a tokenizer and back, one after the other.

    Args:
        tokenizer: with its encoder side.
        images: see ``encode_images``.
        fit: as there, or ``tile``: the image is cut into squares at its own resolution.
        batch_size: images per batch, and squares if images are tiled.
        on_bad: see ``encode_images``.

    Raises:
        ValueError: see ``encode_images``.
    """
    for batch, pixel_values, layouts in _read(images, _processor(tokenizer), fit, batch_size, on_bad):
        grid = tokenizer.config.grid(*pixel_values.shape[-2:])
        ids, copies = [], []
        for part in pixel_values.split(batch_size):
            encoded = tokenizer.encode(part.to(tokenizer.device, tokenizer.dtype)).ids
            ids.append(encoded.cpu())
            copies.append(tokenizer.decode(encoded, grid).float().cpu())
        counts = [layout.rows * layout.columns if layout else 1 for layout in layouts]
        whole = torch.cat(copies)
        # If sides are not a multiple of the patch size, a tokenizer predicts the image resampled to whole patches.
        columns = (torch.cat(ids), resize(pixel_values, *whole.shape[-2:]), whole)
        for parts in zip(batch, *(column.split(counts) for column in columns), layouts, strict=True):
            yield Reconstruction(*parts, tile_size=tokenizer.config.image_size)


def _processor(tokenizer: Tokenizer) -> TokenizerImageProcessor:
    return TokenizerImageProcessor(size=tokenizer.config.image_size)


def _read(
    images: Iterable[ImageLike],
    processor: TokenizerImageProcessor,
    fit: FitOrTile | None,
    batch_size: int,
    on_bad: OnBadImage | None,
) -> Iterator[tuple[list[ImageLike], Tensor, tuple[TileLayout | None, ...]]]:
    """Batches of the images as passed in, their squares (n,3,H,W) in [-1,1], and the layout of each if it is tiled."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")

    def read(image: ImageLike) -> tuple[ImageLike, tuple[Tensor, TileLayout | None] | ImageError]:
        try:
            features: Any = processor([image], mode=fit)
        except ImageError as error:
            return image, error
        return image, (features["pixel_values"], features.get("tiles", [None])[0])

    for batch in in_batches(in_threads(read, images, threads=READERS, ahead=batch_size), batch_size):
        good = []
        for image, found in batch:
            if not isinstance(found, ImageError):
                good.append((image, *found))
            elif on_bad is not None:
                on_bad(image, found)
            else:
                raise found
        if good:
            kept, squares, layouts = zip(*good, strict=True)
            yield list(kept), torch.cat(squares), layouts
