"""How much sub-codebooks help a single patch: only stage 1 is trained, pixel codes are fitted by k-means.

A decoder that sees one token knows the mean patch of its semantic code; the pixel code has to encode the residual. So codes
are fitted to the residuals of raw patches, in the sub-codebooks of each rule of ``semhitok.quantizers.grouping``.

Shapes: N patches, D = 3 p^2 values of a patch of side p, K semantic codes, m pixel codes in a sub-codebook.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from semhitok.data.reading import SizedImages
from semhitok.data.sample import ImageSource
from semhitok.data.transforms import to_float
from semhitok.evaluation.semantics.variance import raw_patches
from semhitok.experiments.experiment import ExperimentContext
from semhitok.experiments.semhitok import SemHiTokExperiment
from semhitok.quantizers.grouping import PixelCodebookKind, grouping_of
from semhitok.quantizers.kmeans import kmeans
from semhitok.quantizers.lookup import nearest_code
from semhitok.tokenizers import SemHiTokModel
from semhitok.training.state import derive_seed

FITTED_IMAGES = 6000


@dataclass(frozen=True)
class SubCodebookErrorExperiment:
    """Mean squared error of patches of test images, as a share of their variance.

    Attributes:
        kind: rule that selects the sub-codebook of a patch.
        stage_1: provides the model of the semantic codes, and m.
    """

    kind: PixelCodebookKind
    stage_1: SemHiTokExperiment

    @property
    def name(self) -> str:
        """Unique."""
        return f"sub-codebook-error-{self.kind}"

    def settings(self) -> dict[str, Any]:
        """See ``Experiment``."""
        return {
            "kind": self.kind,
            "m": self.stage_1.recipe.model["subcodebook_size"],
            "fitted_images": FITTED_IMAGES,
            "stage_1": self.stage_1.settings(),
        }

    def run(self, context: ExperimentContext, seed: int) -> dict[str, float]:
        """See ``Experiment``."""
        model = SemHiTokModel.from_pretrained(self.stage_1.train(context, seed), dtype=torch.float32).eval()
        model.to(context.device)  # pyright: ignore[reportArgumentType]
        fitted, tested = (
            _patches(model, context.train, FITTED_IMAGES),
            _patches(model, context.test, context.test_images),
        )
        size = model.config.semantic_codebook_size
        grouping = grouping_of(self.kind, size)
        means_KD = group_means(fitted.patches_ND, fitted.codes_BN.flatten(), size)
        left_ND = tested.patches_ND - means_KD[tested.codes_BN.flatten()]
        error = pixel_code_error(
            fitted.patches_ND - means_KD[fitted.codes_BN.flatten()],
            grouping(fitted.codes_BN).flatten(),
            left_ND,
            grouping(tested.codes_BN).flatten(),
            m=self.stage_1.recipe.model["subcodebook_size"],
            seed=derive_seed(seed, "sub-codebooks"),
        )
        variance = (tested.patches_ND - tested.patches_ND.mean(dim=0)).square().sum(dim=1).mean()
        semantic = left_ND.square().sum(dim=1).mean()
        return {"semantic_error": float(semantic / variance), "error": float(error / variance)}


def group_means(x_ND: Tensor, groups_N: Tensor, groups: int) -> Tensor:
    """Mean vector of each group (groups,D); an empty group gets the mean of all vectors."""
    counts_K = torch.bincount(groups_N, minlength=groups)
    sums_KD = x_ND.new_zeros(groups, x_ND.shape[1]).index_add_(0, groups_N, x_ND)
    return torch.where(counts_K[:, None] > 0, sums_KD / counts_K.clamp_min(1)[:, None], x_ND.mean(dim=0))


def pixel_code_error(
    fitted_ND: Tensor, fitted_groups_N: Tensor, tested_ND: Tensor, tested_groups_N: Tensor, *, m: int, seed: int
) -> Tensor:
    """Mean squared distance (scalar) of tested vectors to the nearest of the m centres of their own group.

    A tested vector whose group has no fitted vectors is quantized to zero.
    """
    squares = tested_ND.square().sum(dim=1)
    for group in tested_groups_N.unique().tolist():
        members_ND = fitted_ND[fitted_groups_N == group]
        if len(members_ND) == 0:
            continue
        chosen_N = tested_groups_N == group
        centres_mD = kmeans(members_ND, m, seed=seed + group)
        own_ND = tested_ND[chosen_N]
        squares[chosen_N] = (own_ND - centres_mD[nearest_code(own_ND, centres_mD)]).square().sum(dim=1)
    return squares.mean()


@dataclass(frozen=True)
class _Patches:
    """Raw patches of B images in [-1,1], (B*N,D), and their semantic codes (B,N)."""

    patches_ND: Tensor
    codes_BN: Tensor


@torch.no_grad()
def _patches(model: SemHiTokModel, source: ImageSource, images: int) -> _Patches:
    patches, codes = [], []
    for batch in SizedImages(source, model.config.image_size, limit=images):
        pixel_values = to_float(batch.images.to(model.device))
        codes.append(model.encode_semantic(pixel_values).ids.flatten(1).cpu())
        patches.append(raw_patches(model, pixel_values))
    return _Patches(torch.cat(patches), torch.cat(codes))
