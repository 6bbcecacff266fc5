"""Do the stages conflict? Stages 2 and 3 must leave what stage 1 learned bit-identical.

This checks SemHiTok's claim (arXiv 2503.06764, section 3.2, "non-conflicting extension") on images.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from semhitok.tokenizers.protocol import ImageTokenizer


@dataclass(frozen=True)
class StageConflict:
    """Semantic ids and features of the same images before and after a stage.

    Attributes:
        images, tokens: how many were compared.
        ids_changed: tokens whose semantic id differs.
        largest_feature_change: largest absolute difference of an image's mean semantic features, the input of the probe.
        identical: whether all ids and features are bit-identical.
    """

    images: int
    tokens: int
    ids_changed: int
    largest_feature_change: float
    identical: bool

    def sentence(self) -> str:
        """The outcome in one sentence."""
        compared = f"over {self.images:,} images ({self.tokens:,} tokens)"
        if self.identical:
            return f"Semantic ids and semantic features are bit-identical to those of the earlier stage {compared}."
        return (
            f"The stages conflict: {self.ids_changed:,} semantic ids differ from the earlier stage's {compared}, and "
            f"mean semantic features by up to {self.largest_feature_change:.3g}."
        )


def semantic_features(model: ImageTokenizer, ids: Tensor) -> Tensor:
    """Semantic codes averaged over an image's tokens, (B,d_s): the input of the category probe."""
    semantic = model.embed(ids).semantic
    assert semantic is not None
    return semantic.float().mean(dim=1)


@torch.no_grad()
def stage_conflict(before: ImageTokenizer, after: ImageTokenizer, batches: Iterable[Tensor]) -> StageConflict:
    """Compare two stages of one tokenizer.

    Args:
        before, after: the tokenizers, on the device of the images.
        batches: images (B,3,H,W) in [-1,1].

    Raises:
        ValueError: a tokenizer has no semantic ids.
    """
    images = tokens = changed = 0
    largest, identical = 0.0, True
    for pixel_values in batches:
        one, two = before.encode(pixel_values), after.encode(pixel_values)
        if one.semantic_ids is None or two.semantic_ids is None:
            raise ValueError("stages can be compared for tokenizers with semantic ids only, such as SemHiTok.")
        features_one, features_two = semantic_features(before, one.ids), semantic_features(after, two.ids)
        images += len(pixel_values)
        tokens += one.semantic_ids.numel()
        changed += int((one.semantic_ids != two.semantic_ids).sum())
        largest = max(largest, (features_one - features_two).abs().max().item())
        identical &= torch.equal(one.semantic_ids, two.semantic_ids) and torch.equal(features_one, features_two)
    return StageConflict(images, tokens, changed, largest, identical)
