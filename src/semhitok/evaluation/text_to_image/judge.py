"""A judge that detects which objects an image shows, how many of them and where.

A small convolutional head over frozen features predicts, for each cell of a grid and each concept, the probability that
the centre of such an object is there. Detections are the local maxima above the concept's threshold.
``judge_training.fit_judge`` fits it on scenes with ground truth, half of them reconstructed by the image tokenizer, so that
the decoder's blur does not hide objects in generated images.

Shapes: B images, D feature channels, K concepts, G rows and columns of the grid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from semhitok.evaluation.text_to_image.judge_features import GridFeatures, lite2_grid
from semhitok.storage.atomic import atomic_file
from semhitok.storage.cache import weights_path
from semhitok.storage.configuration import sentence_about
from semhitok.storage.weights import check_values

FORMAT = "semhitok-judge-1"
BATCH = 32
RARE = -5.0  # initial logit of the head: centres of a given concept are rare


class JudgeHead(nn.Module):
    """Standardise, mix channels, mix neighbours, classify the concept.

    Args:
        channels: D.
        concepts: K.
        width: hidden channels.
    """

    def __init__(self, channels: int, concepts: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.mix = nn.Conv2d(channels, width, 1)
        self.look = nn.Conv2d(width, width, 3, padding=1)
        self.name = nn.Conv2d(width, concepts, 1)
        assert self.name.bias is not None
        nn.init.normal_(self.name.weight, std=0.02)
        nn.init.constant_(self.name.bias, RARE)

    mean: Tensor
    deviation: Tensor

    def forward(self, features_BDGG: Tensor) -> Tensor:
        """Logits (B,K,G,G)."""
        mean, deviation = (rearrange(each, "d -> d 1 1") for each in (self.mean, self.deviation))
        hidden = self.mix((features_BDGG.float() - mean) / deviation)
        hidden = hidden + self.look(F.gelu(hidden))
        return self.name(F.gelu(hidden))


@dataclass(frozen=True)
class Found:
    """A detected object: its concept, the position of its centre in [0,1] from left and top, its probability."""

    concept: str
    x: float
    y: float
    score: float


class Judge:
    """Detects objects in images.

    Args:
        head: fitted; put into eval mode.
        features: input features of the head.
        concepts: K names, in the order of the head's outputs.
        thresholds_K: minimum probability of a detection, in (0,1).
        fingerprint: identifies everything that the judge was fitted on.
    """

    def __init__(
        self,
        head: JudgeHead,
        features: GridFeatures,
        concepts: Sequence[str],
        thresholds_K: Tensor,
        fingerprint: str,
    ) -> None:
        self.head = head.eval()
        self.features = features
        self.concepts = tuple(concepts)
        self.thresholds_K = thresholds_K
        self.fingerprint = fingerprint

    @torch.no_grad()
    def find(self, images_BCHW: Tensor) -> list[list[Found]]:
        """Detections in each image, the most certain first; images (B,3,H,W) in [-1,1]."""
        found: list[list[Found]] = []
        for part in images_BCHW.split(BATCH):
            features_BDGG = self.features.extract(part).to(self.head.mean.device)
            found += self.find_in_heat(torch.sigmoid(self.head(features_BDGG)))
        return found

    def find_in_heat(self, heat_BKGG: Tensor) -> list[list[Found]]:
        """Detections from probabilities (B,K,G,G)."""
        grid = heat_BKGG.shape[-1]
        peaks = peaks_of(heat_BKGG) & (heat_BKGG >= self.thresholds_K.to(heat_BKGG)[:, None, None])
        found: list[list[Found]] = [[] for _ in heat_BKGG]
        for image, concept, row, column in peaks.nonzero().tolist():
            x, y = (column + 0.5) / grid, (row + 0.5) / grid
            score = float(heat_BKGG[image, concept, row, column])
            found[image].append(Found(self.concepts[concept], x, y, score))
        return [sorted(things, key=lambda thing: -thing.score) for things in found]

    def check_knows(self, concepts: Sequence[str]) -> None:
        """Reject concepts that the judge was not fitted on.

        Raises:
            ValueError: names the first of them.
        """
        unknown = sorted(set(concepts) - set(self.concepts))
        if unknown:
            raise ValueError(
                f"the judge does not know {unknown[0]!r} ({len(unknown)} such concepts): fit it on scenes that show it"
            )

    def save(self, path: Path | str) -> None:
        """Write head and thresholds atomically."""
        document = {
            "format": FORMAT,
            "concepts": self.concepts,
            "features": self.features.protocol,
            "fingerprint": self.fingerprint,
        }
        tensors = {f"head.{name}": tensor.contiguous() for name, tensor in self.head.state_dict().items()}
        with atomic_file(Path(path)) as unfinished:
            save_file(tensors | {"thresholds": self.thresholds_K}, unfinished, metadata={"judge": json.dumps(document)})

    @classmethod
    def load(cls, path: Path | str, features: GridFeatures | None = None) -> Judge:
        """Read what ``save`` wrote.

        Args:
            path: the file.
            features: those that the judge was fitted on; None for EfficientNet-Lite2 with the fetched weights.

        Raises:
            ValueError: no such file, not a judge, or a judge fitted on other features or with values that are not finite.
        """
        try:
            with safe_open(path, framework="pt") as file:
                document = json.loads((file.metadata() or {})["judge"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not iterable itself
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise ValueError(f"{path} does not hold a readable judge: {error!r}") from error
        check_values(tensors, path, every_one=True)
        with sentence_about(path):
            if document.get("format") != FORMAT:
                raise ValueError(f"{path} has the format {document.get('format')}, this version reads {FORMAT}")
            features = features or default_features()
            if document["features"] != features.protocol:
                raise ValueError(f"{path} was fitted on {document['features']}, but was given {features.protocol}")
            thresholds_K = tensors.pop("thresholds")
            head = JudgeHead(features.channels, len(document["concepts"]), width=tensors["head.mix.bias"].shape[0])
            head.load_state_dict({name.removeprefix("head."): tensor for name, tensor in tensors.items()})
            return cls(head, features, document["concepts"], thresholds_K, document["fingerprint"])


def default_features() -> GridFeatures:
    """EfficientNet-Lite2 with the weights from ``semhitok data fetch weights``; ValueError without them."""
    return lite2_grid(weights_path("efficientnet_lite2.pth"))


def peaks_of(heat_BKGG: Tensor) -> Tensor:
    """Cells higher than their eight neighbours, bool (B,K,G,G); of equal neighbours the first in row-major order wins."""
    side = heat_BKGG.shape[-1]
    padded = F.pad(heat_BKGG, (1, 1, 1, 1), value=-torch.inf)
    peaks = torch.ones_like(heat_BKGG, dtype=torch.bool)
    for row in range(3):
        for column in range(3):
            neighbour = padded[..., row : row + side, column : column + side]
            if (row, column) < (1, 1):
                peaks &= heat_BKGG > neighbour
            elif (row, column) > (1, 1):
                peaks &= heat_BKGG >= neighbour
    return peaks
