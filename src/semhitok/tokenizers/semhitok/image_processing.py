"""Images of any kind to the tensors that the tokenizer takes, and back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend

from semhitok.data.images import load_image
from semhitok.data.transforms import fit_image, tile_image, to_float, to_pil, to_uint8

FitMode = Literal["crop", "resize", "tile"]
ImageLike = Image.Image | str | os.PathLike[str] | bytes


class SemHiTokImageProcessor(PilBackend):
    """Paths, bytes or PIL images -> ``pixel_values`` (B,3,size,size) in [-1,1].

    Args:
        size: side of the square in pixels.
        mode: what happens to an image of another shape. ``crop``: the shorter side is resized and the centre kept;
            ``resize``: the whole image is squeezed into the square; ``tile``: the image is cut into squares of its own
            resolution, each an entry of the batch, row by row (``tiles`` in the output holds rows and columns for
            ``untile``).

    RGB, grey, transparent (put on white), palette, CMYK, 16-bit, EXIF-rotated and animated images (first frame) are
    understood; a file that is no image raises ``ImageError``, a ``ValueError`` that names it.
    """

    model_input_names = ["pixel_values"]

    def __init__(self, size: int = 256, mode: FitMode = "crop", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size must be a whole number of pixels, got {size!r}")
        self.size = size
        self.mode: FitMode = _known(mode)

    def __call__(self, images: ImageLike | Sequence[ImageLike], *args: Any, **kwargs: Any) -> BatchFeature:
        return self.preprocess(images, *args, **kwargs)

    def preprocess(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        mode: FitMode | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """See the class; ``mode`` overrides the configured one for this call."""
        if return_tensors not in (None, "pt"):
            raise ValueError(f"return_tensors must be 'pt', got {return_tensors!r}")
        single = isinstance(images, Image.Image | str | os.PathLike | bytes)
        loaded = [load_image(image) for image in ([images] if single else images)]
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


def _known(mode: FitMode) -> FitMode:
    if mode not in get_args(FitMode):
        raise ValueError(f"mode must be one of {', '.join(get_args(FitMode))}, got {mode!r}")
    return mode
