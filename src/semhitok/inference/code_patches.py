"""Which patches of many images are assigned to which semantic code, and how alike the patches of one code look.

Shapes: B images of a batch, I images in all, N tokens, K semantic codes, F values of a patch descriptor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from semhitok.data.reading import SizedImages, evenly_spaced
from semhitok.data.sample import ImageSource
from semhitok.data.transforms import to_float
from semhitok.quantizers.layout import IdLayout
from semhitok.tokenizers.protocol import Tokenizer

DESCRIPTOR_SIDE = 4  # side in pixels to which a patch is downscaled for comparison
FLAT = 0.05  # standard deviation, on [-1,1], below which a patch and its neighbours count as featureless
FEW = 4  # ranking halves the likeness of a code seen in this many images


@dataclass(frozen=True)
class Patch:
    """One patch: image (index in the source), position in the token grid, pixel code under its semantic code."""

    image: int
    row: int
    column: int
    subcode: int


@dataclass(frozen=True)
class CodePatches:
    """The patches of all images by semantic code.

    Attributes:
        images_I: index of each image in the source.
        ids_IN: joint ids.
        grid: rows and columns of tokens.
        layout: which joint ids belong to which semantic code.
        seen_K: images in which a code occurs.
        likeness_K: how alike the patches of a code look across images, in [-1,1]: the mean correlation of patches with
            their surroundings (3 x 3 patches) over pairs of different images; 0 where a code is in fewer than two.
    """

    images_I: Tensor
    ids_IN: Tensor
    grid: tuple[int, int]
    layout: IdLayout
    seen_K: Tensor
    likeness_K: Tensor

    def most_used(self, count: int) -> list[int]:
        """The codes with the most patches."""
        hits_K = torch.bincount(self.layout.split(self.ids_IN)[0].flatten(), minlength=len(self.seen_K))
        return self._top(hits_K.double(), count)

    def most_alike(self, count: int) -> list[int]:
        """The codes whose patches look most alike; codes seen in few images are discounted, as they may be alike by chance."""
        return self._top(self.likeness_K * self.seen_K / (self.seen_K + FEW), count)

    def subcode_counts(self, code: int) -> list[int]:
        """Number of patches for each pixel code of a semantic code."""
        semantic_ids_IN, pixel_ids_IN = self.layout.split(self.ids_IN)
        return torch.bincount(pixel_ids_IN[semantic_ids_IN == code], minlength=self.layout.sizes[code]).tolist()

    def choose(self, code: int, count: int) -> list[Patch]:
        """At most ``count`` patches of a code, from as many images as possible, ordered by pixel code."""
        by_image: dict[int, list[int]] = {}
        semantic_ids_IN, pixel_ids_IN = self.layout.split(self.ids_IN)
        for image, token in (semantic_ids_IN == code).nonzero().tolist():
            by_image.setdefault(image, []).append(token)
        # Round robin over the images, from the middle patch of each; the last round is thinned out evenly.
        middle_first = {image: t[len(t) // 2 :] + t[: len(t) // 2] for image, t in by_image.items()}
        chosen: list[tuple[int, int]] = []
        for turn in range(max(map(len, by_image.values()), default=0)):
            these = [(image, tokens[turn]) for image, tokens in middle_first.items() if turn < len(tokens)]
            chosen += [these[place] for place in evenly_spaced(len(these), count - len(chosen))]
        patches = [
            Patch(int(self.images_I[image]), *divmod(token, self.grid[1]), int(pixel_ids_IN[image, token]))
            for image, token in chosen
        ]
        return sorted(patches, key=lambda patch: (patch.subcode, patch.image, patch.row, patch.column))

    def facts(self, code: int, patches: Sequence[Patch], source: ImageSource, image_size: int) -> dict[str, Any]:
        """A code and some of its patches, as JSON values.

        Args:
            code: the semantic code.
            patches: some of its patches, from ``choose``.
            source: names the images.
            image_size: side in pixels of the encoded images; boxes (left, top, right, bottom) refer to it.
        """
        counts = self.subcode_counts(code)
        high, wide = image_size / self.grid[0], image_size / self.grid[1]

        def box(patch: Patch) -> list[float]:
            left, top = patch.column, patch.row
            return [round(v, 2) for v in (left * wide, top * high, (left + 1) * wide, (top + 1) * high)]

        shown = [
            {
                "image": source.key(patch.image),
                "row": patch.row,
                "column": patch.column,
                "box": box(patch),
                "pixel_code": patch.subcode,
            }
            for patch in patches
        ]
        return {
            "code": code,
            "patches": sum(counts),
            "images": int(self.seen_K[code]),
            "likeness": round(float(self.likeness_K[code]), 4),
            "patches_by_pixel_code": counts,
            "shown": shown,
        }

    def _top(self, scores_K: Tensor, count: int) -> list[int]:
        seen = [code for code in scores_K.argsort(descending=True, stable=True).tolist() if self.seen_K[code]]
        return seen[:count]


@torch.no_grad()
def find_patches(
    model: Tokenizer, images: SizedImages, progress: Callable[[int], None] = lambda done: None
) -> CodePatches:
    """Encode images and collect the patches of each semantic code.

    Raises:
        ValueError: no image, or too many bad ones.
    """
    config, codes = model.config, model.semantic_codebook_size
    assert codes is not None, "checked by the caller"
    grid = config.grid(config.image_size, config.image_size)
    likeness = _Likeness(codes, device=model.device)
    indices, ids = [], []
    for batch in images:
        pixel_values = to_float(batch.images.to(model.device))
        encoded = model.encode(pixel_values)
        assert encoded.semantic_ids is not None
        likeness.update(patch_descriptors(pixel_values, grid), encoded.semantic_ids)
        indices += [images.indices[position] for position in batch.positions]
        ids.append(encoded.ids.cpu())
        progress(batch.positions[-1] + 1)
    if not ids:
        reason = images.bad[0].reason if images.bad else "there are none"
        raise ValueError(f"no image could be read: {reason}")
    return CodePatches(
        images_I=torch.tensor(indices),
        ids_IN=torch.cat(ids),
        grid=grid,
        layout=config.id_layout,
        seen_K=likeness.seen_K.cpu(),
        likeness_K=likeness.result().cpu(),
    )


def patch_descriptors(pixel_values_BCHW: Tensor, grid: tuple[int, int]) -> Tensor:
    """Descriptor of each patch with its eight neighbours, (B,N,F): downscaled pixels, mean 0 in each channel, length 1.

    Means are removed so that structure counts, not colour: otherwise all blue skies would look alike. Featureless patches
    are 0.

    Args:
        pixel_values_BCHW: images in [-1,1].
        grid: rows and columns of tokens; images are padded by replicating their border.
    """
    s = DESCRIPTOR_SIDE
    small = F.adaptive_avg_pool2d(pixel_values_BCHW, (grid[0] * s, grid[1] * s))
    padded = F.pad(small, (s, s, s, s), mode="replicate")
    windows_BNCP = rearrange(F.unfold(padded, 3 * s, stride=s), "b (c p) n -> b n c p", c=pixel_values_BCHW.shape[1])
    descriptors_BNF = (windows_BNCP - windows_BNCP.mean(dim=-1, keepdim=True)).flatten(2)
    visible = descriptors_BNF.square().mean(dim=-1, keepdim=True).sqrt() > FLAT
    return F.normalize(descriptors_BNF, dim=-1) * visible


class _Likeness:
    """Mean correlation between images, from sums: with u_i a code's mean descriptor in image i of n,
    (|sum u_i|^2 - sum |u_i|^2) / (n (n - 1)). Patches of one image overlap and do not count against each other."""

    def __init__(self, codes: int, device: torch.device) -> None:
        self.codes = codes
        self.sums_KF = torch.zeros(codes, 3 * (3 * DESCRIPTOR_SIDE) ** 2, device=device)
        self.squares_K = torch.zeros(codes, device=device)
        self.seen_K = torch.zeros(codes, dtype=torch.int64, device=device)

    def update(self, descriptors_BNF: Tensor, semantic_ids_BN: Tensor) -> None:
        image_BN = torch.arange(len(semantic_ids_BN), device=semantic_ids_BN.device)[:, None]
        pairs, place, hits = (image_BN * self.codes + semantic_ids_BN).unique(return_inverse=True, return_counts=True)
        means_PF = torch.zeros(len(pairs), descriptors_BNF.shape[-1], device=descriptors_BNF.device)
        means_PF.index_add_(0, place.flatten(), rearrange(descriptors_BNF, "b n f -> (b n) f"))
        means_PF /= hits[:, None]
        code_P = pairs % self.codes
        self.sums_KF.index_add_(0, code_P, means_PF)
        self.squares_K.index_add_(0, code_P, means_PF.square().sum(dim=-1))
        self.seen_K.index_add_(0, code_P, torch.ones_like(code_P))

    def result(self) -> Tensor:
        pairs_K = (self.seen_K * (self.seen_K - 1)).clamp(min=1)
        likeness_K = (self.sums_KF.square().sum(dim=-1) - self.squares_K) / pairs_K
        return torch.where(self.seen_K > 1, likeness_K, 0.0).double()
