"""Stage-1 ids of images that are too many for memory: computed once, split over the ranks, before the stages that need them.

Otherwise the frozen teacher runs in every step, in true fp32, and takes most of the time of a stage that trains the pixel branch.
The ids of ImageNet and its mirror images (256 tokens) are 1.3 GB.

Shapes: n images, v variants (plain, flipped), N tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from semhitok import distributed
from semhitok.data.decoding import FittedImages, decoding_loader
from semhitok.data.loading import data_fingerprint, too_many_bad
from semhitok.data.sample import ImageSource
from semhitok.data.transforms import to_float
from semhitok.recipes.recipe import DataConfig
from semhitok.storage.array_cache import CacheKey, digest_of_module, digest_of_text
from semhitok.storage.array_shards import MISSING, ShardedArray, ShardPlan
from semhitok.tokenizers import SemHiTokModel

BATCH = 64


def streamed_semantic_ids(
    source: ImageSource, model: SemHiTokModel, config: DataConfig, folder: Path, report: Callable[[str], None]
) -> ShardedArray:
    """The ids (n,v,N) of all images of a source; those in ``folder`` already are not computed again. A collective.

    Rows of images that cannot be read are missing; the feed replaces such images.

    Raises:
        ValueError: more images than ``config.max_bad_share`` cannot be read, or a file is of another array.
    """
    assert model.teacher is not None
    size, variants = model.config.image_size, 2 if config.flip else 1
    digest = digest_of_text(digest_of_module(model.teacher) + digest_of_module(model.semantic))
    transform = digest_of_text(f"{size} {model.config.teacher_config.image_size} flip={config.flip}")
    key = CacheKey(digest, transform, data_fingerprint(source, size, size, config.fit, []))
    name = digest_of_text(f"{key.teacher} {key.transform} {key.data}")[:12]
    dtype = np.int16 if model.config.semantic_codebook_size <= 2**15 else np.int32
    shape = (len(source), variants, model.num_tokens)
    plan = ShardPlan(folder / f"semantic_ids-{name}", key, shape, dtype)
    images = FittedImages(source, size, size, config.fit)

    @torch.no_grad()
    def compute(rows: range) -> np.ndarray:
        found = np.full((len(rows), *shape[1:]), MISSING, dtype=dtype)
        bad: list[tuple[int, str]] = []
        batches = [list(rows[first : first + BATCH]) for first in range(0, len(rows), BATCH)]
        for decoded in decoding_loader(images, batches, config.workers):
            bad += decoded.bad
            if not len(decoded.indices):
                continue
            pixels = to_float(torch.from_numpy(decoded.images).to(model.device))
            for variant, view in enumerate((pixels, pixels.flip(-1))[:variants]):
                ids = model.encode_semantic(view).ids
                found[decoded.indices - rows.start, variant] = ids.cpu().numpy()
        if len(bad) > config.max_bad_share * max(len(rows), min(1000, len(source))):
            raise too_many_bad(len(bad), len(rows), config.max_bad_share, bad[0][1])
        return found

    own = range(distributed.rank(), len(plan), distributed.world_size())
    if any(not plan.path(shard).exists() for shard in own):
        report(f"computing semantic ids of {len(source)} images in {len(plan)} files")
    for shard in own:
        plan.write(shard, compute)
    distributed.wait_for_all()
    return plan.open()
