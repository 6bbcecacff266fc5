"""Where in its image a token is: learned embeddings of rows and columns, added to the input embeddings of visual ids (not in the
paper).

The rotary positions of a language model count along the sequence, so "one row lower" is "as many tokens later as a row is long":
a small model does not find that out from the data that it is trained on. Here it is told the row and the column.

Shapes: B sequences, L positions, N tokens of one image, D channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_OF_CACHE = "_tokens_of_unfinished_image"


class ImagePositions(nn.Module):
    """One embedding for each row and each column of an image's tokens; all zero at first, which changes nothing.

    Args:
        rows, columns: of an image's tokens.
        width: D.
    """

    def __init__(self, rows: int, columns: int, width: int) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.zeros(rows, width))
        self.column = nn.Parameter(torch.zeros(columns, width))

    def forward(self, index: Tensor | int) -> Tensor:
        """Numbers of tokens within their images, (...) in [0,N), row by row -> embeddings (...,D)."""
        columns = len(self.column)
        return self.row[index // columns] + self.column[index % columns]


def index_in_image(visual_BL: Tensor, image_tokens: int, before_B: Tensor | None = None) -> Tensor:
    """The number of each token within its image, (B,L) in [0,N), meaningful at visual positions only.

    Args:
        visual_BL: which positions hold visual ids.
        image_tokens: N; a longer run of visual ids is several images.
        before_B: how many tokens of an image come right before the sequence; none by default.
    """
    place_BL = torch.arange(visual_BL.shape[1], device=visual_BL.device).expand_as(visual_BL)
    last_BL = place_BL.masked_fill(visual_BL, -1).cummax(dim=1).values
    index_BL = place_BL - last_BL - 1
    if before_B is not None:
        index_BL = index_BL + before_B[:, None] * (last_BL < 0)
    return index_BL % image_tokens


def tokens_at_end(visual_BL: Tensor, image_tokens: int, before_B: Tensor | None = None) -> Tensor | None:
    """How many tokens of an unfinished image sequences end with: (B), 0 after a whole image or anything else.

    Args:
        visual_BL, image_tokens, before_B: see ``index_in_image``.
    """
    if not visual_BL.shape[1]:
        return before_B
    next_B = index_in_image(visual_BL, image_tokens, before_B)[:, -1] + 1
    return next_B % image_tokens * visual_BL[:, -1]


def tokens_before(cache: Any) -> Tensor | None:
    """How many tokens of an unfinished image the sequences in a cache end with, (B), or None if that was not noted."""
    return getattr(cache, _OF_CACHE, None)


def note_tokens(cache: Any, tokens_B: Tensor | None) -> None:
    """Let a cache know what ``tokens_before`` is to find: a pass over one new id does not see how much of its image is there."""
    if cache is not None:
        setattr(cache, _OF_CACHE, tokens_B)
