"""The observation behind SemHiTok, measured: patches of one semantic code look alike (paper section 3.2, Figure 5).

One-way analysis of variance of patches grouped by semantic code: total = within + between, and eta^2 = between / total is
the share that the code explains. Any K groups explain something: random labels explain (K - 1) / (N - 1) in expectation,
whatever the group sizes, and this chance level is reported as well. Two kinds of vectors are compared: the pixel encoder's
features before quantization, of length 1 as the sub-codebooks see them (an encoder trained under semantic guidance may
have adapted to it), and the raw pixels of patches, which do not depend on training.

Shapes: B images, N vectors (patches), D channels, K semantic codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from semhitok.data.reading import SizedImages
from semhitok.data.transforms import to_float
from semhitok.quantizers.dead_codes import keyed_generator
from semhitok.tokenizers import SemHiTokModel


@dataclass(frozen=True)
class VarianceShare:
    """Sums of squares of grouped vectors, over all channels.

    Attributes:
        vectors: N.
        groups: number of groups that occur.
        within: mean squared distance of a vector to the mean of its group.
        between: mean squared distance of a vector's group mean to the mean of all; within + between is the variance.
    """

    vectors: int
    groups: int
    within: float
    between: float

    @property
    def explained(self) -> float:
        """eta^2 = between / (within + between), in [0,1]; 0 if nothing varies."""
        total = self.within + self.between
        return self.between / total if total > 0 else 0.0

    @property
    def chance(self) -> float:
        """Expected eta^2 of random labels."""
        return (self.groups - 1) / (self.vectors - 1) if self.vectors > 1 else 0.0


class GroupedVariance:
    """Accumulates vectors by group, batch by batch, in fp64.

    Args:
        groups: number of groups K.
    """

    def __init__(self, groups: int) -> None:
        self.counts_K = torch.zeros(groups, dtype=torch.float64)
        self.sums_KD: Tensor | None = None
        self.squares_K = torch.zeros(groups, dtype=torch.float64)

    def update(self, x_ND: Tensor, groups_N: Tensor) -> None:
        """Add vectors (N,D) and their groups (N,) in [0,K)."""
        x_ND, groups_N = x_ND.cpu().double(), groups_N.cpu()
        if self.sums_KD is None:
            self.sums_KD = torch.zeros(len(self.counts_K), x_ND.shape[1], dtype=torch.float64)
        self.counts_K.index_add_(0, groups_N, torch.ones(len(x_ND), dtype=torch.float64))
        self.sums_KD.index_add_(0, groups_N, x_ND)
        self.squares_K.index_add_(0, groups_N, x_ND.square().sum(dim=1))

    def result(self) -> VarianceShare:
        """The shares so far.

        Raises:
            ValueError: no vectors were added.
        """
        within, count = float(self._sums_within().sum()), float(self.counts_K.sum())
        assert self.sums_KD is not None
        total = float(self.squares_K.sum() - self.sums_KD.sum(dim=0).square().sum() / count)
        return VarianceShare(int(count), int((self.counts_K > 0).sum()), within / count, (total - within) / count)

    def errors(self) -> Tensor:
        """(K,) variance of each group: the error of a single code, for ``quantizers.allotment``.

        Groups of few vectors are shrunk towards the mean of all groups, which counts as one more degree of freedom.
        """
        within_K = self._sums_within()
        freedom_K = (self.counts_K - 1).clamp(min=0)
        mean = within_K.sum() / freedom_K.sum().clamp(min=1)
        return (within_K + mean) / (freedom_K + 1)

    def _sums_within(self) -> Tensor:
        if self.sums_KD is None:
            raise ValueError("there are no vectors to compare; at least one image is needed")
        return (self.squares_K - self.sums_KD.square().sum(dim=1) / self.counts_K.clamp(min=1)).clamp(min=0)


@dataclass(frozen=True)
class Explained:
    """Share of the variance of one kind of vector explained by semantic codes, and by random groups of the same sizes."""

    by_code: VarianceShare
    at_random: VarianceShare

    def sentence(self) -> str:
        """The shares in one line."""
        return (
            f"{100 * self.by_code.explained:.1f} % of the variance lies between semantic codes; "
            f"{100 * self.at_random.explained:.1f} % between random groups of the same sizes "
            f"({100 * self.by_code.chance:.1f} % expected by chance, {self.by_code.groups:,} codes, "
            f"{self.by_code.vectors:,} patches)"
        )


@dataclass(frozen=True)
class CodeVariance:
    """Variance of patches within and between semantic codes.

    Attributes:
        features: for the pixel encoder's features before quantization, l2-normalised.
        pixels: for the raw patches, in [-1,1].
        counts: (K,) number of patches of each semantic code.
        errors: (K,) variance of the features of each code; with ``counts`` the input of ``allot_sizes``.
    """

    features: Explained
    pixels: Explained
    counts: Tensor
    errors: Tensor

    def to_markdown(self) -> str:
        """Both kinds of vectors as a list."""
        return f"* pixel features: {self.features.sentence()}\n* raw pixels: {self.pixels.sentence()}\n"


def raw_patches(model: SemHiTokModel, pixel_values_BCHW: Tensor) -> Tensor:
    """The pixels under each token of images (B,3,H,W), as the pixel branch sees them: (B*N, 3 p^2) fp32, on the CPU."""
    view, side = model.pixel_view(pixel_values_BCHW), model.config.patch_size
    return rearrange(view.float().cpu(), "b c (h p) (w q) -> (b h w) (c p q)", p=side, q=side)


@torch.no_grad()
def code_variance(model: SemHiTokModel, images: SizedImages, *, seed: int = 0) -> CodeVariance:
    """Measure a tokenizer on images. Features of all patches are held in memory.

    Args:
        model: in eval mode, with its encoder side.
        images: read at the model's image size.
        seed: seed of the random groups, a permutation of the labels that keeps all group sizes.

    Raises:
        ValueError: no image could be read.
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for batch in images:
        pixel_values = to_float(batch.images.to(model.device)).to(model.dtype)
        features_BND = F.normalize(model.pixel_features(pixel_values).float(), dim=-1)
        ids_BN = model.encode_semantic(pixel_values).ids
        pixels_ND = raw_patches(model, pixel_values)
        found.append((features_BND.flatten(0, 1).cpu(), pixels_ND, ids_BN.flatten().cpu()))
    if not found:
        raise ValueError("no image could be read, and at least one is needed")
    features_ND, pixels_ND, ids_N = (torch.cat(column) for column in zip(*found, strict=True))
    shuffled_N = ids_N[torch.randperm(len(ids_N), generator=keyed_generator(seed))]
    codes = model.config.semantic_codebook_size
    by_code = _grouped(features_ND, ids_N, codes)
    return CodeVariance(
        features=Explained(by_code.result(), _grouped(features_ND, shuffled_N, codes).result()),
        pixels=Explained(_grouped(pixels_ND, ids_N, codes).result(), _grouped(pixels_ND, shuffled_N, codes).result()),
        counts=by_code.counts_K,
        errors=by_code.errors(),
    )


def _grouped(x_ND: Tensor, groups_N: Tensor, groups: int) -> GroupedVariance:
    variance = GroupedVariance(groups)
    for part_ND, groups_n in zip(x_ND.split(2**16), groups_N.split(2**16), strict=True):
        variance.update(part_ND, groups_n)
    return variance
