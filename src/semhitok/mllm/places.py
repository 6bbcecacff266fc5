"""Which image stands at which place of which text."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

IMAGE = "<image>"


def assigned(images: Any, places: list[int]) -> list[Any]:
    """All images in the order of their places.

    Raises:
        ValueError: if a text has more or fewer places than images.
    """
    if images is None:
        images = []
    elif isinstance(images, Image.Image | str | os.PathLike | bytes) or getattr(images, "ndim", 0) == 3:
        images = [images]
    elif isinstance(images, np.ndarray | Tensor):
        images = list(images)
    if any(isinstance(each, list | tuple) for each in images):
        if len(images) != len(places):
            raise ValueError(f"images hold lists for {len(images)} texts, got {len(places)} texts")
        for index, (found, wanted) in enumerate(zip(images, places, strict=True)):
            if len(found) != wanted:
                raise ValueError(
                    f"text {index} has {wanted} {IMAGE} and {len(found)} images; they must be equally many"
                )
        return [image for found in images for image in found]
    if len(images) != sum(places):
        raise ValueError(
            f"the text has {sum(places)} {IMAGE} and {len(images)} images were given; they must be equally many"
        )
    return list(images)
