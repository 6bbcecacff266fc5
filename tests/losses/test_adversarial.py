from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from semhitok.losses import adaptive_weight, cut_at, discriminator_hinge_loss, generator_hinge_loss


def test_hinge_hand_computed():
    real = torch.tensor([2.0, 0.5, -1.0])
    generated = torch.tensor([-2.0, 0.0])
    # Real: max(0, 1 - x) = 0, 0.5, 2. Generated: max(0, 1 + x) = 0, 1.
    assert discriminator_hinge_loss(real, generated).item() == pytest.approx(0.5 * (2.5 / 3 + 1 / 2))
    assert generator_hinge_loss(torch.tensor([3.0, -1.0])).item() == pytest.approx(-1.0)
    assert discriminator_hinge_loss(torch.tensor([1.5]), torch.tensor([-1.5])).item() == 0
    assert discriminator_hinge_loss(real.bfloat16(), generated.bfloat16()).dtype == torch.float32


class Step(NamedTuple):
    """A decoder and what is computed from its output, with a batch."""

    decoder: nn.Sequential
    last_layer: Tensor
    losses: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    inputs: Tensor
    target: Tensor


@pytest.fixture
def step() -> Step:
    torch.manual_seed(0)
    last = nn.Conv2d(4, 3, 1)
    decoder = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), last)
    perceptual, discriminator = nn.Conv2d(3, 5, 3), nn.Conv2d(3, 1, 3)
    inputs, target = torch.randn(4, 2, 6, 6), torch.randn(4, 3, 6, 6)

    def losses(images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        reconstruction = (images - target).abs().mean() + perceptual(images).square().mean()
        return reconstruction, generator_hinge_loss(discriminator(images))

    return Step(decoder, last.weight, losses, inputs, target)


def test_adaptive_weight_is_the_ratio_of_gradient_norms(step: Step):
    decoder, last_layer, losses, inputs, target = step
    norms = []
    for index in range(2):
        (gradient,) = torch.autograd.grad(losses(decoder(inputs), target)[index], last_layer)
        norms.append(gradient.norm())
    reconstruction, generator = losses(decoder(inputs), target)
    weight = adaptive_weight(reconstruction, generator, last_layer)
    torch.testing.assert_close(weight, norms[0] / (norms[1] + 1e-6))
    assert not weight.requires_grad


def test_adaptive_weight_is_bounded(step: Step):
    decoder, last_layer, losses, inputs, target = step
    reconstruction, generator = losses(decoder(inputs), target)
    assert adaptive_weight(reconstruction, 0 * generator, last_layer).item() == 1e4  # a saturated discriminator
    assert adaptive_weight(reconstruction, generator, last_layer, maximum=1e-3).item() == pytest.approx(1e-3)
    assert adaptive_weight(0 * reconstruction, generator, last_layer).item() == 0
    (reconstruction + generator).backward()  # both graphs are still there


def test_adaptive_weight_of_two_ranks_is_that_of_the_global_batch(step: Step):
    decoder, last_layer, losses, inputs, target = step
    seen: list[Tensor] = []

    def keep(gradients: Tensor) -> None:
        seen.append(gradients.clone())

    def add_both(gradients: Tensor) -> None:
        gradients.copy_(seen[0] + seen[1])

    def weight(rows: slice, all_reduce: Callable[[Tensor], None] | None = None) -> Tensor:
        reconstruction, generator = losses(decoder(inputs[rows]), target[rows])
        return adaptive_weight(reconstruction, generator, last_layer, all_reduce=all_reduce)

    whole = weight(slice(None))
    weight(slice(0, 2), keep)
    weight(slice(2, 4), keep)
    part = weight(slice(0, 2), add_both)
    torch.testing.assert_close(part, whole, rtol=1e-4, atol=0)


def test_cut_at_keeps_value_and_gradient(step: Step):
    decoder, last_layer, losses, inputs, target = step

    def gradients(cut: bool) -> tuple[list[Tensor], Tensor, Tensor]:
        images = decoder(inputs)
        reconstruction, generator = losses(images, target)
        if cut:
            reconstruction, generator = cut_at(images, reconstruction), cut_at(images, generator)
        weight = adaptive_weight(reconstruction, generator, last_layer)
        total = reconstruction + 0.5 * weight * generator
        return list(torch.autograd.grad(total, list(decoder.parameters()))), weight, total

    plain, cut = gradients(False), gradients(True)
    torch.testing.assert_close(cut, plain)


def test_cut_at_passes_the_network_once(step: Step):
    decoder, last_layer, _, inputs, _ = step
    passes = []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, images):
            return images.clone()

        @staticmethod
        def backward(ctx, *grad_outputs):
            passes.append(1)
            return grad_outputs[0]

    images = decoder(inputs)
    loss = cut_at(images, Counted.apply(images).square().mean())
    adaptive_weight(loss, loss, last_layer)
    loss.backward()
    assert len(passes) == 1


def test_the_adaptive_weight_has_a_lower_bound():
    last = torch.tensor([1.0, 2.0], requires_grad=True)
    small, large = (last * 1e-4).sum(), (last * 10).sum()
    assert float(adaptive_weight(small, large, last)) == pytest.approx(1e-5, rel=1e-3)
    assert float(adaptive_weight(small, large, last, minimum=0.015)) == pytest.approx(0.015)
