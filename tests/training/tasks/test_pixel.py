"""Stages 2 and 3: what moves and what does not, the loss against plain autograd, the exported average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tests.tiny import changed, copy_of, loop_config, optimizer, pixel_config, pixels, take_steps, tiny_feed, tiny_model
from torch import Tensor, nn

from semhitok.data.feed import Batch
from semhitok.tokenizers import SemHiTokModel
from semhitok.training.loop import train
from semhitok.training.optim import take_step
from semhitok.training.state import TrainState
from semhitok.training.task import TrainingError
from semhitok.training.tasks import PixelTask
from semhitok.training.tasks import pixel as pixel_module

PIXEL_PARTS = ("pixel_encoder.", "pixel_quantizer.", "pixel_decoder.")


class Distance(nn.Module):
    """Stands for the perceptual network; not a number from call ``broken_at`` on."""

    def __init__(self, broken_at: int | None = None) -> None:
        super().__init__()
        self.calls, self.broken_at = 0, broken_at
        self.taps = nn.Conv2d(3, 4, 3).requires_grad_(False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        distance = (self.taps(prediction) - self.taps(target)).square().mean(dim=(1, 2, 3))
        return distance * float("nan") if self.calls == self.broken_at else distance


def task_of(
    model: SemHiTokModel | None = None,
    *,
    perceptual: nn.Module | None = None,
    fresh_codebook: bool = False,
    **changes: Any,
) -> PixelTask:
    config = pixel_config(**changes)
    return PixelTask(model or tiny_model(), config, perceptual=perceptual, fresh_codebook=fresh_codebook)


def batch_of(size: int = 8, start: int = 0, **options: Any) -> Batch:
    return next(tiny_feed(**options).batches(start, size))


def error(model: SemHiTokModel) -> float:
    """L1 on other images than those of training, by the model's public path."""
    images = pixels(16, seed=77)
    return float((model.decode(model.encode(images).ids) - images).abs().mean())


def test_learns_to_reconstruct():
    model = tiny_model()
    before = error(model)
    metrics = take_steps(task_of(model, fresh_codebook=True, adversarial_weight=0.0), tiny_feed(), 60)
    assert metrics[-1]["loss/l1"] < 0.7 * metrics[0]["loss/l1"]
    assert metrics[-1]["psnr"] > metrics[0]["psnr"] + 3
    assert error(model) < 0.8 * before


@pytest.mark.parametrize("concat", ["dim", "length", "none"])
@pytest.mark.parametrize("fresh_codebook", [True, False])
def test_moves_the_pixel_branch_alone_and_all_of_it(concat: str, fresh_codebook: bool):
    model = tiny_model(concat=concat)
    before, semantic_ids = copy_of(model), model.encode(pixels(50, seed=5)).semantic_ids
    task = task_of(model, fresh_codebook=fresh_codebook, revive_below=0.9)
    metrics = take_steps(task, tiny_feed(), 12)
    assert any(step.get("revived") for step in metrics)
    assert changed(before, model) == {name for name in before if name.startswith(PIXEL_PARTS)}
    assert not any(parameter.requires_grad for parameter in model.semantic.parameters())
    assert not any(module.training for module in (*model.teacher.modules(), *model.semantic.modules()))
    assert torch.equal(model.encode(pixels(50, seed=5)).semantic_ids, semantic_ids)


def test_stage_3_moves_the_decoder_alone_and_no_id():
    model = tiny_model()
    before, ids = copy_of(model), model.encode(pixels(50, seed=5)).ids
    metrics = take_steps(task_of(model, decoder_only=True, fresh_codebook=True), tiny_feed(), 12)
    assert changed(before, model) == {name for name in before if name.startswith("pixel_decoder.")}
    assert torch.equal(model.encode(pixels(50, seed=5)).ids, ids)
    assert not any("revived" in step or "loss/commitment" in step for step in metrics)
    assert metrics[2]["usage"] > 0


def test_terms_of_the_loss_by_hand():
    model, distance, batch = tiny_model(), Distance(), batch_of()
    weights = {"l1_weight": 0.7, "codebook_weight": 0.4, "commitment_weight": 0.2, "perceptual_weight": 0.5}
    task = task_of(model, perceptual=distance, adversarial_weight=0.0, **weights)
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
    model, distance, batch = tiny_model(), Distance(), batch_of()
    settings = {"perceptual_weight": 0.5, "adversarial_weight": 0.3, "adversarial_start": 0, "diffaug": False}
    task = task_of(model, perceptual=distance, **settings)
    discriminator = task.discriminator
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
    task = task_of(adversarial_start=3, diffaug=False)
    before, state = copy_of(task.discriminator), TrainState(total_steps=12)
    early = take_steps(task, tiny_feed(), 3, state=state)
    assert not changed(before, task.discriminator)
    assert not any(
        name in step for step in early for name in ("loss/generator", "loss/discriminator", "adaptive_weight")
    )
    batch = batch_of(start=24)
    with torch.no_grad():
        reconstruction = task.model(batch.pixel_values()).reconstruction
        real, generated = task.discriminator(batch.pixel_values()), task.discriminator(reconstruction)
        expected = 0.5 * ((1 - real).clamp(min=0).mean() + (1 + generated).clamp(min=0).mean())
    first = take_steps(task, tiny_feed(), 1, state=state)[0]
    assert first["loss/discriminator"] == pytest.approx(float(expected), rel=1e-4)
    assert first["loss/generator"] == pytest.approx(-float(generated.mean()), rel=1e-3, abs=1e-6)
    # While all logits are within the margin, real and generated images pull the last bias equally.
    assert changed(before, task.discriminator) == set(before) - {"blocks.11.bias"}
    assert task.discriminator_optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


def test_the_perceptual_loss_waits_for_its_step_and_can_be_off():
    distance = Distance()
    metrics = take_steps(
        task_of(perceptual=distance, perceptual_weight=1.0, perceptual_start=2, adversarial_weight=0.0), tiny_feed(), 4
    )
    assert ["loss/perceptual" in step for step in metrics] == [False, False, True, True]
    assert distance.calls == 2
    take_steps(task_of(perceptual=distance, perceptual_weight=0.0), tiny_feed(), 1)
    assert distance.calls == 2
    assert task_of(adversarial_weight=0.0).discriminator is None


def test_augmentation_is_the_same_in_a_repeated_step_and_can_be_off():
    weights = []
    for diffaug in (True, True, False):
        task = task_of(adversarial_start=0, diffaug=diffaug)
        with torch.no_grad():
            for index, parameter in enumerate(task.discriminator.parameters()):
                torch.manual_seed(index)
                parameter.copy_(torch.randn_like(parameter) * 0.1)
        take_steps(task, tiny_feed(), 2)
        weights.append(torch.cat([parameter.flatten() for parameter in task.discriminator.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("initialise_step", "steps"), [(1, 1), (2, 2), (3, 3), (5, 5), (6, 6)])
def test_subcodebooks_are_set_from_the_vectors_of_all_steps_up_to_then(
    monkeypatch: pytest.MonkeyPatch, initialise_step: int, steps: int
):
    """Also where an interval of ``revive_every`` = 3 steps ends in between, or right there as in the paper's recipes."""
    task, seen = task_of(fresh_codebook=True, initialise_step=initialise_step), []
    initialise = task.model.pixel_quantizer.initialise

    def spy(z_ND: Tensor, semantic_ids_N: Tensor, **options: Any) -> None:
        seen.append((len(z_ND), len(semantic_ids_N)))
        initialise(z_ND, semantic_ids_N, **options)

    monkeypatch.setattr(task.model.pixel_quantizer, "initialise", spy)
    take_steps(task, tiny_feed(), 8, accumulation=2)
    assert seen == [(steps * 8 * 16, steps * 8 * 16)]


def test_trained_subcodebooks_are_not_set_anew(monkeypatch: pytest.MonkeyPatch):
    for task in (task_of(), task_of(fresh_codebook=True, decoder_only=True)):
        monkeypatch.setattr(task.model.pixel_quantizer, "initialise", lambda *arguments, **options: pytest.fail("set"))
        take_steps(task, tiny_feed(), 5)


def test_usage_is_that_of_the_interval_over_joint_ids():
    model = tiny_model()
    task = task_of(model, decoder_only=True, revive_every=2)
    metrics = take_steps(task, tiny_feed(), 4)
    ids = model.encode(torch.cat([batch_of(start=start).pixel_values() for start in (16, 24)])).ids
    assert metrics[3]["usage"] == pytest.approx(len(ids.unique()) / 64)
    assert ["usage" in step for step in metrics] == [False, True, False, True]


def test_two_microbatches_of_8_equal_one_of_16():
    tasks, metrics, distance = [], [], Distance()
    for accumulation in (1, 2):
        task = task_of(fresh_codebook=True, adversarial_weight=0.0, perceptual=distance, perceptual_weight=0.1)
        metrics.append(take_steps(task, tiny_feed(), 6, batch_size=16, accumulation=accumulation))
        tasks.append(task)
    for one, other in zip(*metrics, strict=True):  # AdamW would hide gradients that are twice as long
        assert other == pytest.approx(one, rel=1e-3)
    for name, tensor in tasks[0].trained.state_dict().items():
        torch.testing.assert_close(tensor, tasks[1].trained.state_dict()[name], atol=2e-4, rtol=1e-3, msg=name)


def test_cached_semantic_ids_stand_for_stage_1():
    model, feed = tiny_model(), tiny_feed()
    batch = next(feed.batches(0, 24))
    ids = torch.empty(24, 1, 16, dtype=torch.int32)
    ids[batch.indices_B, 0] = model.encode(batch.pixel_values()).semantic_ids.int()
    cached, plain = task_of(tiny_model()), task_of(tiny_model())
    take_steps(plain, feed, 3)
    cached.model.encode_semantic = None  # must not be asked
    take_steps(cached, tiny_feed(extras={"semantic_ids": ids.numpy()}), 3)
    assert not changed(copy_of(plain.trained), cached.trained)


def test_the_weight_average_is_what_is_exported(tmp_path: Path):
    model = tiny_model()
    task = task_of(model, average_decay=0.5, revive_until=0.0)
    before, average, state = copy_of(model), {}, TrainState(total_steps=12)
    for count in range(6):
        take_steps(task, tiny_feed(), 1, state=state)
        decay = min(0.5, (count + 2) / (count + 11))  # the n-th update, n from 1: (1 + n) / (10 + n)
        for name, tensor in copy_of(task.trained).items():
            average[name] = tensor if count == 0 else decay * average[name] + (1 - decay) * tensor
    training = copy_of(model)
    task.export(tmp_path)
    assert not changed(training, model), "the weights in training must be put back"
    exported = SemHiTokModel.from_pretrained(tmp_path).state_dict()
    for name, tensor in exported.items():
        if name.startswith(PIXEL_PARTS):
            torch.testing.assert_close(tensor, average[name], atol=1e-6, rtol=1e-5, msg=name)
        else:
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(exported["pixel_decoder.project_in.weight"], training["pixel_decoder.project_in.weight"])


def test_the_codebook_is_not_decayed():
    task = task_of()
    for group in task.optimizer.param_groups:
        holds = any(parameter is task.model.pixel_quantizer.codebook_KmD for parameter in group["params"])
        assert (group["weight_decay"] == 0) or not holds
    assert sum(len(group["params"]) for group in task.optimizer.param_groups) == len(list(task.trained.parameters()))
    assert {group["weight_decay"] for group in task.optimizer.param_groups} == {0.0, 0.05}


def test_a_preview_shows_what_the_pixel_branch_sees_and_changes_nothing():
    model = tiny_model()
    task = task_of(model)
    before = copy_of(model)
    originals, reconstructions = task.preview(batch_of())
    assert torch.equal(originals, batch_of().pixel_values())
    assert torch.equal(reconstructions, model.decode(model.encode(originals).ids))
    assert not changed(before, model)
    assert task.usage.counts.sum() == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bf16_trains_and_keeps_weights_and_codebooks_in_fp32():
    model = tiny_model()
    task = task_of(
        model,
        precision="bf16",
        fresh_codebook=True,
        perceptual=Distance(),
        perceptual_weight=0.1,
        adversarial_start=20,
        optimizer=optimizer(),
    )
    metrics = take_steps(task, tiny_feed(), 30)
    assert metrics[-1]["loss/l1"] < 0.8 * metrics[0]["loss/l1"]
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert task.preview(batch_of())[1].dtype == torch.float32


def test_describes_itself():
    assert task_of().describe().startswith("stage pixel: 0.0")
    assert task_of(decoder_only=True).describe().startswith("stage decoder: 0.0")
    assert task_of().describe().endswith("vocabulary 64")


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="perceptual_weight is above 0 but no perceptual network was given"):
        task_of(perceptual_weight=1.0)
    with pytest.raises(ValueError, match="cannot be trained in a model loaded with encoder=False"):
        task_of(tiny_model(encoder=False))
    with pytest.raises(ValueError, match=r"initialise_step must be at least 1, .* got 0"):
        task_of(fresh_codebook=True, initialise_step=0)
    wrong = torch.zeros(24, 1, 9, dtype=torch.int32).numpy()
    with pytest.raises(ValueError, match=r"semantic ids must have shape \(8, 16\)"):
        take_steps(task_of(), tiny_feed(extras={"semantic_ids": wrong}), 1)


def test_not_a_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path: Path):
    task = task_of(perceptual=Distance(broken_at=6), perceptual_weight=1.0)
    with pytest.raises(TrainingError, match=r"^.*loss.* is not finite in step 6 \(.*checkpoint: step 4\)") as caught:
        train(task, tiny_feed(), loop_config(), tmp_path)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000004"]
    tensors = load_file(tmp_path / "checkpoints" / "step_00000004" / "tensors.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert torch.equal(load_file(tmp_path / "nan_batch.safetensors")["images"], batch_of(start=40).images_BCHW)
    assert not (tmp_path / "model").exists()
