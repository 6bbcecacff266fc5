"""The loss of stages 2 and 3: every term by hand, its gradients against plain autograd, and when each begins."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import (
    Distance,
    changed,
    copy_of,
    pixel_task,
    take_steps,
    tiny_batch,
    tiny_feed,
    tiny_model,
)
from torch import Tensor

from semhitok.training.optim import take_step
from semhitok.training.state import TrainState
from semhitok.training.tasks import pixel as pixel_module


def test_terms_of_the_loss_by_hand():
    model, distance, batch = tiny_model(), Distance(), tiny_batch()
    weights = {"l1_weight": 0.7, "codebook_weight": 0.4, "commitment_weight": 0.2, "perceptual_weight": 0.5}
    task = pixel_task(model, perceptual=distance, adversarial_weight=0.0, **weights)
    target = batch.pixel_values()
    with torch.no_grad():
        features = F.normalize(model.pixel_features(target), dim=-1)
        encoded = model.encode(target)
        codes = model.embed(encoded.ids).pixel
        found = model.decode_features(model.embed(encoded.ids).semantic, codes, (4, 4))
        expected = {
            "loss/l1": (found - target).abs().mean(),
            "loss/codebook": (features - codes).square().mean(),
            "loss/commitment": (features - codes).square().mean(),
            "loss/perceptual": distance(found, target).mean(),
        }
        expected["loss"] = sum(weights[f"{name[5:]}_weight"] * value for name, value in expected.items())
    errors = [
        ((image.clamp(-1, 1) + 1) / 2 - (true + 1) / 2).square().mean()
        for image, true in zip(found, target, strict=True)
    ]
    psnr = sum(10 * torch.log10(1 / error) for error in errors) / 8
    metrics = task.step([batch], TrainState(total_steps=10))
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(float(value), rel=1e-4), name
    assert float(metrics["psnr"]) == pytest.approx(float(psnr), rel=1e-4)


def test_gradients_are_those_of_the_whole_loss_in_plain_autograd(monkeypatch: pytest.MonkeyPatch):
    """``cut_at`` passes the perceptual network and the discriminator backwards once; the result must not differ."""
    model, distance, batch = tiny_model(), Distance(), tiny_batch()
    settings = {"perceptual_weight": 0.5, "adversarial_weight": 0.3, "adversarial_start": 0, "diffaug": False}
    task = pixel_task(model, perceptual=distance, **settings)
    discriminator = task.adversary.discriminator
    output, target = model(batch.pixel_values()), batch.pixel_values()
    visible = (output.reconstruction - target).abs().mean() + 0.5 * distance(output.reconstruction, target).mean()
    generator = -discriminator(output.reconstruction).mean()
    last = model.pixel_decoder.head.refine[-1].weight
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (visible, generator)]
    weight = float(norms[0] / (norms[1] + 1e-6))
    loss = visible + 0.3 * weight * generator + output.losses["codebook"] + 0.25 * output.losses["commitment"]
    names = [name for name, parameter in task.trained.named_parameters() if parameter.requires_grad]
    expected = torch.autograd.grad(loss, [task.trained.get_parameter(name) for name in names])

    seen: dict[str, Tensor] = {}

    def spy(optimizer, *arguments):
        if optimizer is task.optimizer:
            seen.update({name: task.trained.get_parameter(name).grad.clone() for name in names})
            assert all(parameter.grad is None for parameter in discriminator.parameters())
        return take_step(optimizer, *arguments)

    monkeypatch.setattr(pixel_module, "take_step", spy)
    metrics = task.step([batch], TrainState(total_steps=10))
    assert float(metrics["adaptive_weight"]) == pytest.approx(weight, rel=1e-3)
    assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-4)
    for name, gradient in zip(names, expected, strict=True):
        torch.testing.assert_close(seen[name], gradient, atol=1e-6, rtol=2e-3, msg=name)


def test_the_discriminator_learns_the_hinge_loss_from_its_start_on():
    task = pixel_task(adversarial_start=3, diffaug=False)
    before, state = copy_of(task.adversary.discriminator), TrainState(total_steps=12)
    early = take_steps(task, tiny_feed(), 3, state=state)
    assert not changed(before, task.adversary.discriminator)
    assert not any(
        name in step for step in early for name in ("loss/generator", "loss/discriminator", "adaptive_weight")
    )
    batch = tiny_batch(start=24)
    with torch.no_grad():
        reconstruction = task.model(batch.pixel_values()).reconstruction
        real, generated = (
            task.adversary.discriminator(batch.pixel_values()),
            task.adversary.discriminator(reconstruction),
        )
        expected = 0.5 * ((1 - real).clamp(min=0).mean() + (1 + generated).clamp(min=0).mean())
    first = take_steps(task, tiny_feed(), 1, state=state)[0]
    assert first["loss/discriminator"] == pytest.approx(float(expected), rel=1e-4)
    assert first["loss/generator"] == pytest.approx(-float(generated.mean()), rel=1e-3, abs=1e-6)
    # While all logits are within the margin, real and generated images pull the last bias equally.
    assert changed(before, task.adversary.discriminator) == set(before) - {"blocks.11.bias"}
    assert task.adversary.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


def test_the_perceptual_loss_waits_for_its_step_and_can_be_off():
    distance = Distance()
    metrics = take_steps(
        pixel_task(perceptual=distance, perceptual_weight=1.0, perceptual_start=2, adversarial_weight=0.0),
        tiny_feed(),
        4,
    )
    assert ["loss/perceptual" in step for step in metrics] == [False, False, True, True]
    assert distance.calls == 2
    take_steps(pixel_task(perceptual=distance, perceptual_weight=0.0), tiny_feed(), 1)
    assert distance.calls == 2
    assert pixel_task(adversarial_weight=0.0).adversary is None


def test_augmentation_is_the_same_in_a_repeated_step_and_can_be_off():
    weights = []
    for diffaug in (True, True, False):
        task = pixel_task(adversarial_start=0, diffaug=diffaug)
        with torch.no_grad():
            for index, parameter in enumerate(task.adversary.discriminator.parameters()):
                torch.manual_seed(index)
                parameter.copy_(torch.randn_like(parameter) * 0.1)
        take_steps(task, tiny_feed(), 2)
        weights.append(torch.cat([parameter.flatten() for parameter in task.adversary.discriminator.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_two_microbatches_of_8_equal_one_of_16():
    tasks, metrics, distance = [], [], Distance()
    for accumulation in (1, 2):
        task = pixel_task(fresh_codebook=True, adversarial_weight=0.0, perceptual=distance, perceptual_weight=0.1)
        metrics.append(take_steps(task, tiny_feed(), 6, batch_size=16, accumulation=accumulation))
        tasks.append(task)
    for one, other in zip(*metrics, strict=True):  # AdamW would hide gradients that are twice as long
        assert other == pytest.approx(one, rel=1e-3)
    for name, tensor in tasks[0].trained.state_dict().items():
        torch.testing.assert_close(tensor, tasks[1].trained.state_dict()[name], atol=2e-4, rtol=1e-3, msg=name)
