"""Fit a judge on scenes with ground truth, every second one reconstructed by the image tokenizer.

The judge is independent of the models that it scores: its features come from a network that no tokenizer here is trained
with, and its head is fitted once, on training scenes. A tenth of these scenes is held out to choose the thresholds.

Loss: focal loss (Lin et al. 2017, arXiv 1708.02002) over cells and concepts, per centre. The neighbours of a centre are
left out, as they show the same object (the heat maps of Zhou et al. 2019, arXiv 1904.07850, with a hard edge).

Shapes: N scenes, B of them in a batch, D feature channels, K concepts, G rows and columns of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semhitok.data.transforms import to_float
from semhitok.evaluation.text_to_image.judge import Judge, JudgeHead, default_features, peaks_of
from semhitok.evaluation.text_to_image.judge_features import GridFeatures
from semhitok.quantizers.dead_codes import keyed_generator
from semhitok.scenes.truth import Progress, SceneTruth, TrueScenes, concepts_of, read_scenes
from semhitok.storage.array_cache import digest_of_module, digest_of_text

BATCH = 32
HELD_BACK = 10  # one scene in this many
PRIOR = 20.0  # weight, in scenes, of all concepts in the threshold of one: few held-out scenes show a given concept
THRESHOLDS = torch.linspace(0.05, 0.9, 86)

Centre = tuple[int, int, int]
"""(concept, row, column)."""


@dataclass(frozen=True)
class JudgeConfig:
    """How the head is fitted.

    Attributes:
        width: hidden channels of the head.
        epochs: passes over the scenes.
        learning_rate, weight_decay: of AdamW; cosine schedule to 0 after a short warm-up.
        gamma: exponent of the focal loss; 0 is cross-entropy.
    """

    width: int = 128
    epochs: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    gamma: float = 2.0


def fit_judge(
    source_folder: Path | str,
    tokenizer: Any,
    *,
    limit: int | None = 8000,
    seed: int = 0,
    progress: Progress | None = None,
    features: GridFeatures | None = None,
    config: JudgeConfig | None = None,
) -> Judge:
    """Fit a judge to the concepts of the scenes.

    Args:
        source_folder: folder of training scenes (tars).
        tokenizer: an ``ImageTokenizer``; scenes are read at its image size, and every second one is reconstructed by it.
        limit: at most this many scenes, evenly spaced over the folder; None for all. Features of all of them are held in
            memory: 90 kB per scene.
        seed: decides the head's weights and the order of scenes; the same seed gives the same judge.
        progress: called with a description, the number done and the total.
        features: None for EfficientNet-Lite2 with the fetched weights.
        config: settings of the fit.

    Raises:
        ValueError: no scenes with objects, or fewer than 20 scenes.
    """
    features, config = features or default_features(), config or JudgeConfig()
    scenes = read_scenes(source_folder, tokenizer.config.image_size, limit=limit, progress=progress)
    concepts = concepts_of(scenes.truths)
    if len(scenes.truths) < 2 * HELD_BACK:
        raise ValueError(f"a judge needs at least {2 * HELD_BACK} scenes, {source_folder} has {len(scenes.truths)}")
    # In pairs: one original and one reconstruction.
    held_back = torch.arange(len(scenes.truths)) // 2 % HELD_BACK == HELD_BACK // 2
    features_NDGG = _features(scenes, tokenizer, features, progress)
    centres = [centres_of(truth, concepts, features.grid) for truth in scenes.truths]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = JudgeHead(features.channels, len(concepts), config.width)
    device = features_NDGG.device
    head.to(device)
    _fit(head, features_NDGG, centres, (~held_back).nonzero()[:, 0], seed, config, progress)
    thresholds_K = _thresholds(head.eval(), features_NDGG, centres, held_back.nonzero()[:, 0])
    made_of = [
        scenes.fingerprint,
        digest_of_module(tokenizer),
        f"{features.protocol} {asdict(config)} {len(scenes.truths)} {seed}",
    ]
    return Judge(head, features, concepts, thresholds_K, digest_of_text("\n".join(made_of))[:32])


def centres_of(truth: SceneTruth, concepts: Sequence[str], grid: int) -> list[Centre]:
    """The cells with the centres of the scene's objects."""
    place = {concept: index for index, concept in enumerate(concepts)}
    last = grid - 1
    return [
        (place[thing.concept], min(int(thing.y * grid), last), min(int(thing.x * grid), last))
        for thing in truth.objects
    ]


def targets_of(centres: Sequence[Sequence[Centre]], concepts: int, grid: int) -> tuple[Tensor, Tensor]:
    """Masks of the centres and of the cells where a concept's loss counts, both bool (B,K,G,G)."""
    positive = torch.zeros(len(centres), concepts, grid, grid, dtype=torch.bool)
    counted = torch.ones_like(positive)
    for image, things in enumerate(centres):
        for concept, row, column in things:
            counted[image, concept, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = False
            positive[image, concept, row, column] = True
    return positive, counted | positive


def focal_loss(logits_BKGG: Tensor, positive_BKGG: Tensor, counted_BKGG: Tensor, gamma: float) -> Tensor:
    """Focal loss summed over the counted cells, divided by the number of centres; a scalar."""
    signed = torch.where(positive_BKGG, logits_BKGG, -logits_BKGG)
    cells = -F.logsigmoid(signed) * torch.sigmoid(-signed) ** gamma
    return (cells * counted_BKGG).sum() / positive_BKGG.sum().clamp(min=1)


@torch.no_grad()
def _features(scenes: TrueScenes, tokenizer: Any, features: GridFeatures, progress: Progress | None) -> Tensor:
    """Features of all scenes, fp16 (N,D,G,G); every second scene is reconstructed by the tokenizer first."""
    found: Tensor | None = None
    parameter = next(tokenizer.parameters())
    tokenizer.eval()
    for start in range(0, len(scenes.images), BATCH):
        pixel_values = to_float(scenes.images[start : start + BATCH])
        inputs = pixel_values[1::2].to(parameter)
        if len(inputs):
            pixel_values[1::2] = tokenizer.decode(tokenizer.encode(inputs).ids).float().cpu()
        part = features.extract(pixel_values)
        if found is None:
            found = part.new_empty(len(scenes.images), *part.shape[1:], dtype=torch.float16)
        found[start : start + len(part)] = part
        if progress is not None:
            progress("features for the judge", start + len(part), len(scenes.images))
    assert found is not None
    return found


def _fit(
    head: JudgeHead,
    features_NDGG: Tensor,
    centres: Sequence[Sequence[Centre]],
    chosen_N: Tensor,
    seed: int,
    config: JudgeConfig,
    progress: Progress | None,
) -> None:
    channels = features_NDGG[chosen_N[:1000]].float().transpose(0, 1).flatten(1)
    head.mean.copy_(channels.mean(dim=1))
    head.deviation.copy_(channels.std(dim=1) + 1e-3)
    concepts, grid = head.name.out_channels, features_NDGG.shape[-1]
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    batches = math.ceil(len(chosen_N) / BATCH)
    steps = config.epochs * batches
    for step in range(steps):
        epoch, batch = divmod(step, batches)
        if batch == 0:
            generator = keyed_generator(seed, epoch)
            order_N = chosen_N[torch.randperm(len(chosen_N), generator=generator)]
            mirrored = torch.rand(batches, generator=generator) < 0.5
        rows = order_N[batch * BATCH : (batch + 1) * BATCH]
        positive, counted = (
            each.to(features_NDGG.device)
            for each in targets_of([centres[row] for row in rows.tolist()], concepts, grid)
        )
        given = features_NDGG[rows]
        if mirrored[batch]:
            # Mirroring features is nearly the same as extracting them from the mirrored image, and costs nothing.
            given, positive, counted = given.flip(-1), positive.flip(-1), counted.flip(-1)
        warm = min(1.0, (step + 1) / 50)
        optimizer.param_groups[0]["lr"] = config.learning_rate * warm * (1 + math.cos(math.pi * step / steps)) / 2
        loss = focal_loss(head(given), positive, counted, config.gamma)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 10.0)
        optimizer.step()
        if progress is not None:
            progress("fitting the judge", step + 1, steps)


@torch.no_grad()
def _thresholds(head: JudgeHead, features_NDGG: Tensor, centres: Sequence[Sequence[Centre]], rows_N: Tensor) -> Tensor:
    """The threshold of each concept with the best F1 of presence; see ``best_thresholds``."""
    highest = []
    for part in rows_N.split(BATCH):
        heat = torch.sigmoid(head(features_NDGG[part]))
        highest.append((heat * peaks_of(heat)).flatten(2).amax(dim=-1).cpu())
    shown_NK = torch.zeros(len(rows_N), head.name.out_channels, dtype=torch.bool)
    for index, row in enumerate(rows_N.tolist()):
        shown_NK[index, [concept for concept, *_ in centres[row]]] = True
    return best_thresholds(torch.cat(highest), shown_NK)


def best_thresholds(highest_NK: Tensor, shown_NK: Tensor) -> Tensor:
    """(K) thresholds, each with the best F1 of its concept's presence.

    F1 = 2 right / (said + shown). Few of the held-out scenes show a given concept, so the pooled counts of all concepts
    are added to its own, with the weight of ``PRIOR`` scenes that show it.

    Args:
        highest_NK: the highest probability of each concept in each scene.
        shown_NK: bool, whether the scene shows the concept.
    """
    said = np.stack([(highest_NK >= threshold).numpy() for threshold in THRESHOLDS])
    right_TK = torch.from_numpy((said & shown_NK.numpy()).sum(axis=1)).double()
    total_TK = torch.from_numpy(said.sum(axis=1)).double() + shown_NK.sum(dim=0)
    prior = PRIOR / shown_NK.sum()
    right_TK = right_TK + prior * right_TK.sum(dim=1, keepdim=True)
    total_TK = total_TK + prior * total_TK.sum(dim=1, keepdim=True)
    return THRESHOLDS[(right_TK / total_TK).argmax(dim=0)]
