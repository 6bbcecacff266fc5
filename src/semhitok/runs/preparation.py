"""Feeds of the training loop from images on disk, with cached teacher features and stage-1 ids.

Shapes: n images, v variants (plain, flipped), N tokens, D teacher channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from semhitok import distributed
from semhitok.data.feed import CaptionReader, Feed, LoadedImages, MemoryFeed, StreamFeed, load_into_memory
from semhitok.data.sample import ImageSource
from semhitok.data.sources import evenly_spaced
from semhitok.data.transforms import to_float
from semhitok.recipes.recipe import CACHE_LIMIT, DataConfig
from semhitok.runs.streamed_ids import streamed_semantic_ids
from semhitok.storage.array_cache import ArrayCache, CacheKey, digest_of_module, digest_of_text
from semhitok.storage.array_shards import ShardedArray
from semhitok.teachers import Teacher
from semhitok.tokenizers import SemHiTokModel
from semhitok.training.tasks.pixel import SEMANTIC_IDS
from semhitok.training.tasks.semantic import FEATURES

CACHE_BATCH = 64
Report = Callable[[str], None]


class FeatureSource(Protocol):
    """What computes a frozen teacher's features of a tokenizer's images: the tokenizer itself, or a stand-in for it.

    Attributes:
        config: has ``image_size`` and ``teacher_config``.
        teacher: the teacher, whose weights identify cached features.
    """

    @property
    def config(self) -> Any: ...
    @property
    def teacher(self) -> Teacher | None: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    def teacher_features(self, pixel_values: Tensor) -> Tensor:
        """Images (B,3,H,W) in [-1,1] -> (B,N,D)."""
        ...


class TrainingImages:
    """The images of a run, read on first use and provided to each stage as a feed.

    Args:
        source: the images.
        image_size: side in pixels to which images are resampled.
        config: how images are read.
        cache: folder for values that are computed once per image.
        report: called with lines for the user.
    """

    def __init__(self, source: ImageSource, image_size: int, config: DataConfig, cache: Path, report: Report) -> None:
        self.source, self.image_size, self.config, self.cache, self.report = source, image_size, config, cache, report

    @cached_property
    def loaded(self) -> LoadedImages | None:
        """All images in memory, or None if they exceed the memory limit and are streamed."""
        config = self.config
        if len(self.source) * 3 * self.image_size**2 > config.memory_limit:
            return None
        loaded = load_into_memory(
            self.source,
            self.image_size,
            self.image_size,
            config.fit,
            workers=config.workers,
            max_bad_share=config.max_bad_share,
        )
        self.report(f"{len(loaded.images)} images in memory")
        for key, reason in loaded.bad[:5]:
            self.report(f"skipped {key}: {reason}")
        if loaded.bad:
            self.report(f"{len(loaded.bad)} bad images skipped in all")
        return loaded

    def feed(
        self,
        *,
        seed: int,
        device: torch.device,
        extras: Mapping[str, np.ndarray | ShardedArray] | None = None,
        from_captions: CaptionReader | None = None,
    ) -> Feed:
        """Batches for one stage; ``from_captions`` turns the captions of images into further extras (B, ...)."""
        config = self.config
        if self.loaded is not None:
            found = {} if from_captions is None else from_captions(self.loaded.captions)
            rows = len(self.loaded.images), self._variants
            read = {name: np.broadcast_to(value[:, None], rows + value.shape[1:]) for name, value in found.items()}
            extras = {**(extras or {}), **read}
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
            extras=extras,
            workers=config.workers,
            from_captions=from_captions,
            max_bad_share=config.max_bad_share,
        )

    def captions(self, limit: int) -> list[str]:
        """The existing captions of all images in memory, or else of ``limit`` images evenly spaced in the source."""
        loaded = self.loaded
        if loaded is None:  # one-pixel images, since only captions are needed
            share, workers = self.config.max_bad_share, self.config.workers
            loaded = load_into_memory(evenly_spaced(self.source, limit), 1, 1, workers=workers, max_bad_share=share)
        return [caption for caption in loaded.captions if caption is not None]

    def features(self, model: FeatureSource, limit: int = CACHE_LIMIT) -> dict[str, np.ndarray]:
        """Extras of stages that distill: the teacher's features (n,v,N,D), or an empty dict if they exceed ``limit`` bytes."""
        width = model.config.teacher_config.backbone_config.hidden_size
        if self.loaded is None or 2 * self._rows() * model.num_tokens * width > limit:
            return {}
        key = self._features_key(model)
        path = _cache_file(self.cache, FEATURES, key)

        def compute(images: Tensor, start: int) -> Tensor:
            views = torch.stack([images, images.flip(-1)][: self._variants], dim=1)
            return model.teacher_features(views.flatten(0, 1)).unflatten(0, views.shape[:2])

        shape = (model.num_tokens, width)
        return {FEATURES: self._cached(path, key, shape, np.float16, compute, model.device)}

    def semantic_ids(
        self, model: SemHiTokModel, *, samples: int = 0, limit: int = CACHE_LIMIT
    ) -> Mapping[str, np.ndarray | ShardedArray]:
        """The later stages' extras: semantic ids (n,v,N) of the finished stage 1.

        Of streamed images they are computed if that is less work than computing them in every step of a stage with so many
        ``samples``, and if they take at most ``limit`` bytes; otherwise there are none.

        They are computed from the cached features, if these exist, without running the teacher again. Their half
        precision changed 0.03 % of the ids of ``nano`` (docs/experiments.md).
        """
        if self.loaded is None:
            rows = len(self.source) * self._variants
            if samples <= rows or 2 * rows * model.num_tokens > limit:
                return {}
            return {SEMANTIC_IDS: streamed_semantic_ids(self.source, model, self.config, self.cache, self.report)}
        assert model.teacher is not None
        teacher = digest_of_text(digest_of_module(model.teacher) + digest_of_module(model.semantic))
        key = self._key(teacher, model)
        path = _cache_file(self.cache, SEMANTIC_IDS, key)
        features_key = self._features_key(model)
        source = _cache_file(self.cache, FEATURES, features_key)

        def compute(images: Tensor, start: int) -> Tensor:
            if source.exists():
                features = ArrayCache.open(source, features_key).array
                rows = torch.from_numpy(np.array(features[start : start + len(images)])).to(images.device).float()
                return model.semantic.quantize(rows.flatten(0, 1)).ids.unflatten(0, rows.shape[:2])
            views = torch.stack([images, images.flip(-1)][: self._variants], dim=1)
            return model.encode_semantic(views.flatten(0, 1)).ids.unflatten(0, views.shape[:2])

        return {SEMANTIC_IDS: self._cached(path, key, (model.num_tokens,), np.int32, compute, model.device)}

    @property
    def _variants(self) -> int:
        return 2 if self.config.flip else 1

    def _features_key(self, model: FeatureSource) -> CacheKey:
        assert model.teacher is not None
        return self._key(digest_of_module(model.teacher), model)

    def _rows(self) -> int:
        assert self.loaded is not None
        return len(self.loaded.images) * self._variants

    def _key(self, teacher: str, model: FeatureSource) -> CacheKey:
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
        compute: Callable[[Tensor, int], Tensor],
        device: torch.device,
    ) -> np.ndarray:
        """A cached array (n, v, *shape) of the results of ``compute(pixel_values, index of the first image)``.

        Unless it exists, the main rank writes it while the others wait.
        """
        assert self.loaded is not None
        images = self.loaded.images

        def write_unless_there() -> bool:
            if path.exists():
                return False
            self.report(f"computing {path.stem} of {len(images)} images")
            with ArrayCache.create(path, key, (len(images), self._variants, *shape), dtype) as cache:
                for start in range(0, len(images), CACHE_BATCH):
                    values = compute(to_float(images[start : start + CACHE_BATCH].to(device)), start)
                    cache.write(start, values.cpu().numpy())
                cache.finish()
            return True

        distributed.main_decides(write_unless_there)
        return ArrayCache.open(path, key).array


def _cache_file(folder: Path, name: str, key: CacheKey) -> Path:
    """One file per teacher, transform and data set, since the stages of a run may use different images."""
    return folder / f"{name}-{digest_of_text(f'{key.teacher} {key.transform} {key.data}')[:12]}.cache"
