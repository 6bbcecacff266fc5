"""The second candidate for the built-in teacher: a small SigLIP tower trained here on captioned scenes.

Caption embeddings come from a frozen MiniLM, the starting signal from EfficientNet-Lite0; both are computed once and
passed as extras. docs/experiments.md compares it with EfficientNet-Lite0 itself.

Shapes: n images, N patches, E channels of a caption embedding, T text tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.contrastive_task import CAPTIONS, SIGNAL, ContrastiveConfig, ContrastiveTask
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, SiglipVisionConfig, SiglipVisionModel

from semhitok.data.feed import MemoryFeed
from semhitok.data.reading import SizedImages
from semhitok.data.sample import ImageSource, digest_of_lines
from semhitok.data.transforms import to_float
from semhitok.storage.array_cache import ArrayCache, CacheKey, digest_of_module, digest_of_text
from semhitok.storage.cache import require_weights, weights_path
from semhitok.teachers import Teacher
from semhitok.training.loop import LoopConfig, train
from semhitok.training.optim import OptimizerConfig
from semhitok.training.state import TrainState, derive_seed

BATCH = 64
TEXT_BATCH = 128
Report = Callable[[str], None]


@dataclass(frozen=True)
class TeacherRecipe:
    """Everything needed to train a teacher, except the data.

    Attributes:
        backbone: fields of ``SiglipVisionConfig``.
        images: maximum number of the source's images, evenly spaced; their features are kept on disk.
        loop: batches and steps.
        task: losses and optimizer.
    """

    backbone: dict[str, Any]
    images: int
    loop: LoopConfig
    task: ContrastiveConfig


def small_siglip() -> TeacherRecipe:
    """2.8M parameters, an 8x8 grid of a 128 px image, like the grid of EfficientNet-Lite0 at that size."""
    return TeacherRecipe(
        backbone={
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "image_size": 128,
            "patch_size": 16,
            "vision_use_head": False,
        },
        images=20_000,
        loop=LoopConfig(steps=20_000, batch_size=BATCH, checkpoint_every=500),
        task=ContrastiveConfig(
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=100, weight_decay=0.05),
            initial_bias=-math.log(BATCH),
        ),
    )


def train_teacher(
    recipe: TeacherRecipe,
    source: ImageSource,
    directory: Path,
    *,
    signal: Teacher | None = None,
    text_encoder: Path | None = None,
    device: torch.device,
    report: Report = print,
) -> TrainState:
    """Train the recipe's tower in ``directory``, resuming; ``directory/model`` is then a transformers checkpoint.

    Args:
        recipe: what to train.
        source: images with captions (``caption`` in their metadata).
        directory: folder of the run, also of the cached starting signal.
        signal: network that provides the starting signal, by default EfficientNet-Lite0.
        text_encoder: folder of a transformers text encoder whose mean over tokens is a sentence embedding, by default
            MiniLM from ``semhitok data fetch``.
        device: device to train on.
        report: called with lines for the user.

    Raises:
        ValueError: an image has no caption, weights are missing, or the two grids differ.
    """
    torch.manual_seed(derive_seed(recipe.loop.seed, "teacher"))
    backbone = SiglipVisionModel(SiglipVisionConfig(**recipe.backbone))
    backbone.to(device)  # pyright: ignore[reportArgumentType]  transformers wraps it, which hides its signature
    size: int = recipe.backbone["image_size"]
    signal = (signal or Teacher.efficientnet_lite0(image_size=size)).to(device)
    grid = size // recipe.backbone["patch_size"]
    if signal.grid(size, size) != (grid, grid):
        raise ValueError(
            f"the starting signal's grid {signal.grid(size, size)} differs from the tower's {(grid, grid)} at {size} px"
        )
    images, captions = _captioned(source, size, recipe.images)
    report(f"{len(images)} images; embedding {len(set(captions))} different captions")
    embeddings = caption_embeddings(captions, text_encoder or weights_path("minilm"), device)
    # Captions have much in common ("... in front of ..."); subtracting their mean spreads the cosines between them.
    embeddings = torch.nn.functional.normalize(embeddings - embeddings.mean(dim=0), dim=-1)
    report("computing the starting signal")
    features = _signal_features(signal, images, digest_of_lines([source.fingerprint, str(len(images))]), directory)
    feed = MemoryFeed(
        images,
        seed=derive_seed(recipe.loop.seed, "teacher feed"),
        extras={CAPTIONS: embeddings[:, None].numpy(), SIGNAL: features},
        device=device,
    )
    task = ContrastiveTask(backbone, recipe.task, caption_dim=embeddings.shape[1], signal_dim=signal.dim)
    return train(task, feed, recipe.loop, directory)


@torch.no_grad()
def caption_embeddings(
    captions: Sequence[str], folder: Path, device: torch.device | str = "cpu", batch_size: int = TEXT_BATCH
) -> Tensor:
    """Sentence embeddings (n,E), fp32, of unit length, on the CPU: the mean over text tokens, padding left out.

    Args:
        captions: texts; equal ones are embedded once.
        folder: folder of a transformers text encoder with its text tokenizer.
        device: device to compute on.
        batch_size: texts per batch.

    Raises:
        ValueError: there is no text encoder.
    """
    require_weights(folder / "config.json", "there is no text encoder")
    text_tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    texts = sorted(set(captions), key=len)  # batches of similar length need little padding
    found: list[Tensor] = []
    for start in range(0, len(texts), batch_size):
        tokens = text_tokenizer(texts[start : start + batch_size], padding=True, truncation=True, return_tensors="pt")
        tokens = tokens.to(device)
        hidden_nTE = model(**tokens).last_hidden_state
        mask_nT1 = tokens["attention_mask"][..., None].to(hidden_nTE.dtype)
        found.append(((hidden_nTE * mask_nT1).sum(dim=1) / mask_nT1.sum(dim=1)).cpu())
    place = {text: index for index, text in enumerate(texts)}
    embeddings = torch.nn.functional.normalize(torch.cat(found), dim=-1)
    return embeddings[[place[caption] for caption in captions]]


def _captioned(source: ImageSource, size: int, limit: int) -> tuple[Tensor, list[str]]:
    """Images (n,3,size,size) uint8 and the caption of each."""
    images: list[Tensor] = []
    captions: list[str] = []
    for batch in SizedImages(source, size, limit=limit):
        images.append(batch.images)
        for metadata in batch.metadata:
            if not metadata.get("caption"):
                raise ValueError(
                    "an image has no caption; a teacher is trained on images with captions, such as scenes"
                )
            captions.append(str(metadata["caption"]))
    if not images:
        raise ValueError("there are no images to train a teacher on")
    return torch.cat(images), captions


@torch.no_grad()
def _signal_features(signal: Teacher, images: Tensor, data: str, directory: Path) -> np.ndarray:
    """The starting signal (n,1,N,F) fp16, from the run's cache, which is filled if needed."""
    path = directory / "signal.cache"
    size = images.shape[-1]
    key = CacheKey(digest_of_module(signal), digest_of_text(f"{size} px"), data)
    if path.exists():
        return ArrayCache.open(path, key).array
    device = next(signal.parameters()).device
    shape = (len(images), 1, math.prod(signal.grid(size, size)), signal.dim)
    with ArrayCache.create(path, key, shape, np.float16) as cache:
        for start in range(0, len(images), BATCH):
            features_BNF = signal(to_float(images[start : start + BATCH].to(device)))
            cache.write(start, features_BNF[:, None].float().cpu().numpy())
        return cache.finish().array
