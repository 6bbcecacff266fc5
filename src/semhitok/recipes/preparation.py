"""From images on disk to the feeds of the training loop, with the teacher's features and stage-1 ids cached.

Shapes: n images, v variants (plain, flipped), N tokens, D teacher channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semhitok.data.feed import Feed, LoadedImages, MemoryFeed, StreamFeed, load_into_memory
from semhitok.data.sample import ImageSource
from semhitok.data.transforms import to_float
from semhitok.recipes.recipe import DataConfig
from semhitok.teachers import ArrayCache, CacheKey, digest_of_module, digest_of_text
from semhitok.tokenizers import SemHiTokModel
from semhitok.training.tasks.pixel import SEMANTIC_IDS
from semhitok.training.tasks.semantic import FEATURES

CACHE_BATCH = 64
Report = Callable[[str], None]


class TrainingImages:
    """The images of a run, read once and handed to each stage as a feed."""

    def __init__(self, source: ImageSource, image_size: int, config: DataConfig, report: Report) -> None:
        self.source, self.image_size, self.config, self.report = source, image_size, config, report
        self.loaded: LoadedImages | None = None
        if len(source) * 3 * image_size**2 <= config.memory_limit:
            self.loaded = load_into_memory(
                source,
                image_size,
                image_size,
                config.fit,
                workers=config.workers,
                max_bad_share=config.max_bad_share,
            )
            report(f"{len(self.loaded.images)} images in memory")
            for key, reason in self.loaded.bad[:5]:
                report(f"skipped {key}: {reason}")
            if self.loaded.bad:
                report(f"{len(self.loaded.bad)} bad images skipped in all")

    def feed(self, *, seed: int, device: torch.device, extras: dict[str, np.ndarray] | None = None) -> Feed:
        """Batches for one stage."""
        config = self.config
        if self.loaded is not None:
            return MemoryFeed(
                self.loaded.images,
                seed=seed,
                flip=config.flip,
                extras=extras,
                device=device,
                fingerprint=self.loaded.fingerprint,
            )
        return StreamFeed(
            self.source,
            self.image_size,
            self.image_size,
            seed=seed,
            mode=config.fit,
            flip=config.flip,
            device=device,
            workers=config.workers,
            max_bad_share=config.max_bad_share,
        )

    def features(self, model: SemHiTokModel, folder: Path) -> dict[str, np.ndarray]:
        """Stage 1's extras: the teacher's features (n,v,N,D), or nothing where they are not to be cached."""
        width = model.config.teacher_config.backbone_config.hidden_size
        assert model.teacher is not None
        if self.loaded is None or 2 * self._rows() * model.num_tokens * width > self.config.cache_limit:
            return {}
        key = self._key(digest_of_module(model.teacher), model)
        shape = (model.num_tokens, width)
        return {
            FEATURES: self._cached(folder / "features.cache", key, shape, np.float16, model.teacher_features, model)
        }

    def semantic_ids(self, model: SemHiTokModel, folder: Path) -> dict[str, np.ndarray]:
        """The later stages' extras: semantic ids (n,v,N) of the finished stage 1."""
        if self.loaded is None:
            return {}
        assert model.teacher is not None
        key = self._key(digest_of_text(digest_of_module(model.teacher) + digest_of_module(model.semantic)), model)
        shape = (model.num_tokens,)

        def ids(pixel_values: Tensor) -> Tensor:
            return model.encode_semantic(pixel_values).ids

        return {SEMANTIC_IDS: self._cached(folder / "semantic_ids.cache", key, shape, np.int32, ids, model)}

    def _rows(self) -> int:
        assert self.loaded is not None
        return len(self.loaded.images) * (2 if self.config.flip else 1)

    def _key(self, teacher: str, model: SemHiTokModel) -> CacheKey:
        assert self.loaded is not None
        transform = f"{model.config.image_size} {model.config.teacher_config.image_size} flip={self.config.flip}"
        return CacheKey(teacher=teacher, transform=digest_of_text(transform), data=self.loaded.fingerprint)

    @torch.no_grad()
    def _cached(
        self,
        path: Path,
        key: CacheKey,
        shape: tuple[int, ...],
        dtype: type,
        compute: Callable[[Tensor], Tensor],
        model: SemHiTokModel,
    ) -> np.ndarray:
        if path.exists():
            return ArrayCache.open(path, key).array
        assert self.loaded is not None
        images, variants = self.loaded.images, 2 if self.config.flip else 1
        self.report(f"computing {path.stem} of {len(images)} images, {math.ceil(len(images) / CACHE_BATCH)} batches")
        with ArrayCache.create(path, key, (len(images), variants, *shape), dtype) as cache:
            for start in range(0, len(images), CACHE_BATCH):
                plain = to_float(images[start : start + CACHE_BATCH].to(model.device))
                views = torch.stack([plain, plain.flip(-1)][:variants], dim=1)
                values = compute(views.flatten(0, 1)).unflatten(0, views.shape[:2])
                cache.write(start, values.cpu().numpy())
            return cache.finish().array
