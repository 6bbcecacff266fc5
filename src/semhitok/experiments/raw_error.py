"""Raw error of quantizers on fixed features: nothing is trained, codebooks are fitted by k-means.

Shapes: N vectors, D channels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor

from semhitok.data.reading import SizedImages
from semhitok.data.transforms import to_float
from semhitok.experiments.experiment import ExperimentContext
from semhitok.quantizers import MultiCodebookQuantizer, ResidualQuantizer
from semhitok.teachers import Teacher
from semhitok.training.state import derive_seed

DIM = 64
FITTED, TESTED = 8192, 2048
TEACHER_SIZE = 128
QuantizerKind = Literal["multi_codebook", "residual"]
Vectors = Literal["random", "image"]


@dataclass(frozen=True)
class QuantizationErrorExperiment:
    """A quantizer fitted to 8,192 vectors and measured on 2,048 others.

    Both quantizers see the same vectors, cut into 8 chunks of unit length as MCQ needs them. The error is the mean squared
    distance to the quantized vector as a share of the variance.

    Attributes:
        quantizer: ``multi_codebook`` or ``residual``.
        features: ``random`` normal vectors, or ``image``: EfficientNet-Lite0's patch features of training images, their 64
            principal components at equal variance.
        codes: C, the number per vector.
        codebook_size: K.
    """

    quantizer: QuantizerKind
    features: Vectors
    codes: int = 8
    codebook_size: int = 1024

    @property
    def name(self) -> str:
        """Unique."""
        return f"quantization-error-{self.quantizer}-{self.features}-{self.codes}x{self.codebook_size}"

    def settings(self) -> dict[str, Any]:
        """See ``Experiment``."""
        return asdict(self)

    @torch.no_grad()
    def run(self, context: ExperimentContext, seed: int) -> dict[str, float]:
        """See ``Experiment``."""
        vectors_ND = _random(seed) if self.features == "random" else _principal_components(_patches(context))
        mixed = torch.randperm(len(vectors_ND), generator=torch.Generator().manual_seed(derive_seed(seed, "split")))
        chunks = MultiCodebookQuantizer(self.codes, 1, DIM)
        vectors_ND = chunks.normalise(vectors_ND[mixed][None])[0]
        fitted_ND, tested_ND = vectors_ND[:FITTED], vectors_ND[FITTED : FITTED + TESTED]
        kind = MultiCodebookQuantizer if self.quantizer == "multi_codebook" else ResidualQuantizer
        quantizer = kind(self.codes, self.codebook_size, DIM)
        quantizer.initialise(fitted_ND, seed=seed)
        error = (quantizer(tested_ND[None]).codes[0] - tested_ND).square().sum(dim=1).mean()
        variance = (tested_ND - tested_ND.mean(dim=0)).square().sum(dim=1).mean()
        return {"error": float(error / variance)}


def _random(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(seed, "vectors"))
    return torch.randn(FITTED + TESTED, DIM, generator=generator)


@torch.no_grad()
def _patches(context: ExperimentContext) -> Tensor:
    """Patch features (N,D) of the teacher on training images."""
    teacher = Teacher.efficientnet_lite0(image_size=TEACHER_SIZE).to(context.device)
    rows, columns = teacher.grid(TEACHER_SIZE, TEACHER_SIZE)
    images = SizedImages(context.train, TEACHER_SIZE, limit=(FITTED + TESTED) // (rows * columns) + 1)
    found = [teacher(to_float(batch.images.to(context.device))) for batch in images]
    return rearrange(torch.cat(found), "b n d -> (b n) d").float().cpu()


def _principal_components(vectors_ND: Tensor) -> Tensor:
    """The DIM largest principal components, each scaled to variance one."""
    centred_ND = (vectors_ND - vectors_ND.mean(dim=0)).double()
    values_D, basis_DD = torch.linalg.eigh(centred_ND.T @ centred_ND / len(centred_ND))
    return (centred_ND @ basis_DD[:, -DIM:] / values_D[-DIM:].sqrt()).float()
