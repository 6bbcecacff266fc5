"""Conversion of images of any kind to the tokenizer's input tensors and back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend

from semhitok.data.image_sources import resolve_image_source
from semhitok.data.images import load_image
from semhitok.data.transforms import fit_image, tile_image, to_float, to_pil, to_uint8
from semhitok.storage.configuration import sentence_about
from semhitok.storage.configuration_fields import check_choice, checked_fields
from semhitok.tokenizers.checkpoints import builtin_checkpoint
from semhitok.types import FitOrTile

ImageLike = Image.Image | str | os.PathLike[str] | bytes | np.ndarray | Tensor


class TokenizerImageProcessor(PilBackend):
    """Paths, bytes, data URLs, PIL images or uint8 arrays -> ``pixel_values`` (B,3,size,size) in [-1,1].

    Args:
        size: side of the square in pixels.
        mode: how other shapes are handled. ``crop`` resizes the shorter side and keeps the centre; ``resize`` squeezes
            the whole image into the square; ``tile`` splits the image into squares at its own resolution, each an entry
            of the batch, row by row (``tiles`` in the output holds rows and columns for ``untile``).

    It handles RGB, grey, transparent (composited on white), palette, CMYK, 16-bit, EXIF-rotated and animated images (first
    frame); a file that is not an image raises ``ImageError``, a ``ValueError`` that names it.
    """

    model_input_names = ["pixel_values"]

    @checked_fields
    def __init__(self, size: int = 256, mode: FitOrTile = "crop", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size must be a whole number of pixels, got {size!r}")
        self.size = size
        self.mode: FitOrTile = _known(mode)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: str | os.PathLike[str] = "mini", **kwargs: Any
    ) -> TokenizerImageProcessor:
        """Load the processor of a checkpoint: a folder, a hub id, or the name of one bundled with the package."""
        place = builtin_checkpoint(pretrained_model_name_or_path)
        with sentence_about(place):
            return super().from_pretrained(place, **kwargs)

    def __call__(self, images: ImageLike | Sequence[ImageLike], *args: Any, **kwargs: Any) -> BatchFeature:
        return self.preprocess(images, *args, **kwargs)

    def preprocess(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        mode: FitOrTile | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """See the class; ``mode`` overrides the configured one for this call."""
        if return_tensors not in (None, "pt"):
            raise ValueError(f"return_tensors must be 'pt', got {return_tensors!r}")
        loaded = [load_image(_decoded(image)) for image in _listed(images)]
        if not loaded:
            raise ValueError("no images were given, at least one is needed")
        fit = _known(mode or self.mode)
        if fit != "tile":
            squares = [fit_image(image, self.size, self.size, fit) for image in loaded]
            return BatchFeature({"pixel_values": torch.stack([to_float(to_uint8(square)) for square in squares])})
        squares, layouts = [], []
        for image in loaded:
            tiles, layout = tile_image(image, self.size, self.size)
            squares.extend(tiles)
            layouts.append(layout)
        stacked = torch.stack([to_float(to_uint8(square)) for square in squares])
        return BatchFeature({"pixel_values": stacked, "tiles": layouts})

    def postprocess(self, pixel_values: Tensor) -> list[Image.Image]:
        """Images (B,3,H,W) in [-1,1] -> PIL images."""
        return [to_pil(image) for image in pixel_values]


def _listed(images: ImageLike | Sequence[ImageLike]) -> Sequence[ImageLike]:
    """A list of images; a single image becomes a list of one, an array with four axes is a batch."""
    if isinstance(images, np.ndarray | Tensor):
        return [images] if images.ndim < 4 else list(images)
    return [images] if isinstance(images, Image.Image | str | os.PathLike | bytes) else images


def _decoded(image: ImageLike) -> Image.Image | str | os.PathLike[str] | bytes:
    """Arrays as PIL images: uint8 (H,W,3), or (3,H,W) as in torch. Data URLs as bytes."""
    if isinstance(image, str | os.PathLike):
        return resolve_image_source(image)
    if not isinstance(image, np.ndarray | Tensor):
        return image
    array = image.cpu().numpy() if isinstance(image, Tensor) else image
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = rearrange(array, "c h w -> h w c")
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(
            f"arrays must be uint8 of shape (height, width, 3) or (3, height, width), got {array.dtype} {array.shape}"
        )
    return Image.fromarray(array)


def _known(mode: FitOrTile) -> FitOrTile:
    check_choice("mode", mode, get_args(FitOrTile))
    return mode
