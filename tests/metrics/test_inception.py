"""The Inception network of FID, and how each protocol resizes its input; torch-fidelity's own code is the oracle where it is installed."""

from __future__ import annotations

import hashlib
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from semhitok.metrics.frechet import PROTOCOLS, FeatureExtractor, inception_features
from semhitok.metrics.inception import Inception, resize_like_pillow, resize_like_tensorflow1


def random_weights(path: Path) -> Path:
    """Weights in the form of the published file: with a classifier, without counts of batches."""
    generator = torch.Generator().manual_seed(0)
    tensors = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    for name, tensor in Inception().state_dict().items():
        if name.endswith("conv.weight"):
            tensors[name] = torch.randn(tensor.shape, generator=generator) * math.sqrt(2 / tensor[0].numel())
        elif not name.endswith("num_batches_tracked"):
            noise = 0.1 * torch.randn(tensor.shape, generator=generator)
            tensors[name] = noise + (1 if name.endswith(("bn.weight", "running_var")) else 0)
    torch.save(tensors, path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return random_weights(tmp_path_factory.mktemp("inception") / "weights.pth")


def images(count: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(1)).float()


def test_the_network_has_the_parameters_of_inception_v3():
    # 23,834,568 with a classifier of 1,000 classes, which has 2,049,000.
    assert sum(parameter.numel() for parameter in Inception().parameters()) == 23_834_568 - 2_049_000


def test_features_are_those_of_torch_fidelity(weights: Path):
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    theirs = fidelity.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights)
    )
    ours = inception_features(weights)
    for height, width in ((40, 50), (320, 310)):
        given = images(1, height, width)
        expected = theirs(given.to(torch.uint8))[0]
        found = ours.extract(given / 127.5 - 1)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_places_of_tensorflow_1():
    given = images(1, 3, 5)
    found = resize_like_tensorflow1(given)
    for row, column in ((0, 0), (1, 7), (150, 200), (298, 298)):
        y, x = row * 3 / 299, column * 5 / 299
        top, left = int(y), int(x)
        bottom, right = min(top + 1, 2), min(left + 1, 4)
        first = given[0, :, top, left] * (1 - (x - left)) + given[0, :, top, right] * (x - left)
        second = given[0, :, bottom, left] * (1 - (x - left)) + given[0, :, bottom, right] * (x - left)
        torch.testing.assert_close(
            found[0, :, row, column], first * (1 - (y - top)) + second * (y - top), rtol=1e-4, atol=1e-3
        )


@pytest.mark.parametrize("side", [64, 400])
def test_clean_fid_resizes_as_pillow_does(side: int):
    given = images(1, side, side)
    for found, channel in zip(resize_like_pillow(given)[0], given[0].numpy(), strict=True):
        expected = Image.fromarray(channel, mode="F").resize((299, 299), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(found, np.asarray(expected).clip(0, 255), atol=2e-2)


@pytest.fixture(scope="module")
def extractors(weights: Path) -> dict[str, FeatureExtractor]:
    return {name: inception_features(weights, protocol=name) for name in PROTOCOLS}


def test_images_are_compared_as_eight_bits(extractors: dict[str, FeatureExtractor]):
    given = images(1, 27, 27) / 127.5 - 1
    # Less than half a grey level apart, and beyond the range: the same once saved as 8 bits.
    copies = (given + 0.003).where(given < 1, torch.tensor(1.5))
    assert torch.equal(extractors["torch-fidelity"].extract(given), extractors["torch-fidelity"].extract(copies))


def test_protocols_have_names_and_their_own_resizing(extractors: dict[str, FeatureExtractor], weights: Path):
    assert [each.name for each in extractors.values()] == ["rFID", "rFID (ADM)", "rFID (clean-fid)"]
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
    assert all(f"weights {digest}" in each.protocol for each in extractors.values())
    fidelity, adm, clean = (each.extract(images(1, 60, 60) / 127.5 - 1) for each in extractors.values())
    assert fidelity.shape == (1, 2048)
    assert torch.equal(fidelity, adm)
    assert not torch.allclose(fidelity, clean, rtol=1e-3)


def test_weights_of_another_network_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no file .*missing\.pth"):
        inception_features(tmp_path / "missing.pth")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(nn.Linear(1, 1), protocol=2))
    with pytest.raises(ValueError, match="plain tensors"):
        inception_features(tmp_path / "code.pth")
    name = "Mixed_7c.branch_pool.conv.weight"
    good = {each: torch.zeros(()).expand(tensor.shape) for each, tensor in Inception().state_dict().items()}
    for changed, message in (
        ({each: good[each] for each in good if each != name}, f"{name} is missing"),
        (good | {"other": torch.zeros(1)}, "other is unknown"),
        (good | {name: torch.zeros(1)}, "size mismatch"),
    ):
        torch.save(changed, tmp_path / "other.pth")
        with pytest.raises(ValueError, match=message):
            inception_features(tmp_path / "other.pth")
