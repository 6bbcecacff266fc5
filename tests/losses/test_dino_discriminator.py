"""The discriminator on a frozen DINOv2: against its parts put together by hand, at tiny size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Dinov2Config, Dinov2Model

from semhitok.losses import DinoDiscriminator, dinov2_small_config


def backbone() -> Dinov2Model:
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14)
    return Dinov2Model(config)


def discriminator(**changes: Any) -> DinoDiscriminator:
    return DinoDiscriminator(backbone(), **({"taps": (0, 2), "image_size": 56, "groups": 4} | changes))


def pictures(count: int = 3, size: int = 56) -> Tensor:
    return 2 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) - 1


def head_by_hand(head: Any, state_BND: Tensor) -> Tensor:
    """Convolutions as sums over shifted sequences; weights divided by their largest singular value by SVD."""

    def convolve(module: Any, sequence_BND: Tensor) -> Tensor:
        weight = module.weight
        shifts = range(-(weight.shape[2] // 2), weight.shape[2] // 2 + 1)
        shifted = [torch.roll(sequence_BND, -shift, dims=1) @ weight[:, :, k].T for k, shift in enumerate(shifts)]
        return sum(shifted) + module.bias

    def block(module: Any, sequence_BND: Tensor) -> Tensor:
        out = convolve(module[0], sequence_BND)
        grouped = out.unflatten(2, (4, 8))
        mean, var = grouped.mean(dim=(1, 3), keepdim=True), grouped.var(dim=(1, 3), unbiased=False, keepdim=True)
        out = ((grouped - mean) / (var + 1e-5).sqrt()).flatten(2) * module[1].weight + module[1].bias
        return torch.where(out > 0, out, 0.2 * out)

    hidden = block(head[0], state_BND)
    hidden = (hidden + block(head[1].block, hidden)) / math.sqrt(2)
    return convolve(head[2], hidden)[..., 0]


def test_logits_are_those_of_the_parts():
    judge = discriminator().eval()
    images = pictures()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = ((images + 1) / 2 - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    with torch.no_grad():
        states = backbone().eval()(normalised, output_hidden_states=True).hidden_states
        found = judge(images)
        expected = [
            head_by_hand(head, states[tap + 1][:, 1:] + states[tap + 1][:, :1])
            for head, tap in zip(judge.heads, (0, 2), strict=True)
        ]
    assert found.shape == (3, 2 * 16)
    torch.testing.assert_close(found, torch.cat(expected, dim=1), atol=1e-5, rtol=1e-4)


def test_other_sizes_are_resized():
    judge = discriminator().eval()
    images = pictures(size=40)
    resized = F.interpolate(images, (56, 56), mode="bicubic", antialias=True)
    torch.testing.assert_close(judge(images), judge(resized), atol=1e-4, rtol=1e-4)


def test_weights_are_spectrally_normalised():
    judge = discriminator().train()
    images = pictures()
    for _ in range(20):  # power iterations
        judge(images)
    weight = judge.heads[0][1].block[0].weight
    assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1.0, abs=2e-2)


def test_only_the_heads_are_trained_and_stored():
    judge = discriminator().train()
    images = pictures().requires_grad_()
    judge(images).mean().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in judge.parameters())
    assert {name.split(".")[0] for name, _ in judge.named_parameters()} == {"heads"}
    assert {name.split(".")[0] for name in judge.state_dict()} == {"heads"}
    (frozen,) = judge._frozen
    assert not frozen.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in frozen.parameters())


def test_a_folder_of_weights_gives_the_same_network(tmp_path):
    backbone().save_pretrained(tmp_path)
    torch.manual_seed(3)
    one = DinoDiscriminator.from_pretrained(str(tmp_path), taps=(1,), image_size=70).eval()
    torch.manual_seed(3)
    other = DinoDiscriminator(backbone(), taps=(1,), image_size=70)
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(pictures()), other.eval()(pictures()))


def test_the_published_network_has_21_million_parameters():
    with torch.device("meta"):
        network = Dinov2Model(dinov2_small_config())
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(22.06, abs=0.01)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"taps": (0, 3)}, "between 0 and 2"),
        ({"taps": ()}, "at least one"),
        ({"image_size": 50}, "multiple of the backbone's patch 14, but got 50"),
        ({"kernel_size": 8}, "odd, but got 8"),
        ({"groups": 5}, "divide the backbone's width 32, but got 5"),
        ({"image_size": 14}, "too wide for the 1 patches"),
    ],
)
def test_impossible_arguments(change: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        discriminator(**change)
