"""The codes of one image, one by one: read them, change them, and see what they decode to.

For tokenizers whose ids have a semantic part (SemHiTok): id = first id of semantic code k, plus pixel code j.

Shapes: N tokens, M pictures of a batch, C = 3 channels, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from semhitok.data.transforms import to_pil
from semhitok.inference.reconstruction import encode_images
from semhitok.quantizers.layout import IdLayout
from semhitok.tokenizers.image_processing import ImageLike
from semhitok.tokenizers.protocol import Tokenizer
from semhitok.types import FitMode

DECODED_AT_ONCE = 16  # pictures of one batch


@dataclass(frozen=True)
class ImageCodes:
    """The ids of one image, from ``read_codes``; methods that change codes return new ones.

    Attributes:
        tokenizer: decodes them.
        ids_N: joint ids on the CPU, row by row.
        grid: rows and columns.
    """

    tokenizer: Tokenizer
    ids_N: Tensor
    grid: tuple[int, int]

    @property
    def layout(self) -> IdLayout:
        """Which joint ids belong to which semantic code."""
        return self.tokenizer.config.id_layout

    @property
    def semantic_ids(self) -> Tensor:
        """(N,): k of every token."""
        return self.layout.split(self.ids_N)[0]

    @property
    def pixel_ids(self) -> Tensor:
        """(N,): j of every token."""
        return self.layout.split(self.ids_N)[1]

    def at(self, position: int) -> tuple[int, int]:
        """Semantic code k and pixel code j of the token at a position, which counts row by row."""
        self._check_position(position)
        return int(self.semantic_ids[position]), int(self.pixel_ids[position])

    def sub_codebook_size(self, position: int) -> int:
        """Number of pixel codes under the semantic code at a position."""
        return self.layout.sizes[self.at(position)[0]]

    def picture(self) -> Image.Image:
        """What the ids decode to."""
        return to_pil(self._decoded(self.ids_N[None])[0])

    def semantic_picture(self) -> Image.Image:
        """What the semantic codes alone determine: the mean of the pictures in which every token has pixel code j, over all j.

        Sub-codebooks with fewer codes than the largest repeat theirs.
        """
        semantic_ids_N, sizes_N = self.semantic_ids, self.layout.size_of[self.semantic_ids]
        ids_MN = torch.stack([self.layout.flatten(semantic_ids_N, j % sizes_N) for j in range(self.layout.largest)])
        return to_pil(self._decoded(ids_MN).mean(dim=0))

    def alternatives(self, position: int) -> list[Image.Image]:
        """The picture under every pixel code of the sub-codebook at a position; all other tokens stay as they are."""
        first = int(self.layout.offset_of[self.at(position)[0]])
        ids_MN = self.ids_N.repeat(self.sub_codebook_size(position), 1)
        ids_MN[:, position] = first + torch.arange(len(ids_MN))
        return [to_pil(picture) for picture in self._decoded(ids_MN)]

    def with_token(self, position: int, semantic_id: int, pixel_id: int) -> ImageCodes:
        """The codes with another token at a position.

        Raises:
            ValueError: there is no such position, semantic code or pixel code.
        """
        self._check_position(position)
        if not 0 <= semantic_id < len(self.layout.sizes):
            raise ValueError(f"semantic codes are 0 to {len(self.layout.sizes) - 1:,}, got {semantic_id:,}")
        size = self.layout.sizes[semantic_id]
        if not 0 <= pixel_id < size:
            raise ValueError(f"pixel codes under semantic code {semantic_id:,} are 0 to {size - 1}, got {pixel_id:,}")
        ids_N = self.ids_N.clone()
        ids_N[position] = int(self.layout.offset_of[semantic_id]) + pixel_id
        return replace(self, ids_N=ids_N)

    def with_pixel_codes_of(self, other: ImageCodes) -> ImageCodes:
        """The semantic codes of this image with the pixel codes of another one, token by token.

        A pixel code beyond the end of a smaller sub-codebook starts again at its first one.

        Raises:
            ValueError: the images were read by different tokenizers, or have different grids.
        """
        if other.tokenizer is not self.tokenizer or other.grid != self.grid:
            raise ValueError("codes can be mixed only between images of one size that one tokenizer has read")
        semantic_ids_N = self.semantic_ids
        pixel_ids_N = other.pixel_ids % self.layout.size_of[semantic_ids_N]
        return replace(self, ids_N=self.layout.flatten(semantic_ids_N, pixel_ids_N))

    def _check_position(self, position: int) -> None:
        if not 0 <= position < len(self.ids_N):
            raise ValueError(f"tokens are at positions 0 to {len(self.ids_N) - 1}, got {position}")

    @torch.no_grad()
    def _decoded(self, ids_MN: Tensor) -> Tensor:
        """(M,N) -> (M,C,H,W) in [-1,1] on the CPU."""
        parts = ids_MN.to(self.tokenizer.device).split(DECODED_AT_ONCE)
        return torch.cat([self.tokenizer.decode(part, self.grid).float().cpu() for part in parts])


def read_codes(tokenizer: Tokenizer, image: ImageLike, *, fit: FitMode = "crop") -> ImageCodes:
    """Encode one image.

    Args:
        tokenizer: with its encoder side.
        image: a path, bytes, a PIL image or a uint8 array.
        fit: how to make the image square.

    Raises:
        ValueError: an unreadable image, or a tokenizer whose ids have no semantic part.
    """
    if tokenizer.semantic_codebook_size is None:
        raise ValueError("this tokenizer has no semantic codes: a SemHiTok checkpoint is needed")
    encoded = next(encode_images(tokenizer, [image], fit=fit, batch_size=1))
    return ImageCodes(tokenizer, encoded.ids[0], encoded.grid)
