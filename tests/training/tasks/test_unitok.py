"""UniTok's task: its losses against the formulas, what is switched off, what a step changes, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.tiny import Distance, changed, copy_of, take_steps
from tests.tiny_unitok_training import captioned_feed, unitok_config, unitok_model, unitok_task
from torch import Tensor, nn
from torch.nn import functional as F

from semhitok.losses import PatchDiscriminator
from semhitok.tokenizers import UniTokModel
from semhitok.training.state import TrainState

ONLY_CONTRASTIVE = {"l1_weight": 0.0, "l2_weight": 0.0}


def discriminator() -> PatchDiscriminator:
    torch.manual_seed(5)
    return PatchDiscriminator(8)


def batch_of(count: int = 8, start: int = 0):
    return next(captioned_feed().batches(start, count))


def count_calls(module: nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def parts(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_the_loss_is_the_weighted_sum_of_the_papers_terms():
    model, distance, batch = unitok_model(), Distance(), batch_of()
    target = batch.pixel_values()
    with torch.no_grad():
        features = model.features(target)
        unit = F.normalize(features.unflatten(2, (2, 4)), dim=-1).flatten(2)
        encoded = model.encode(target)
        codes = model.embed(encoded.ids).pixel
        drawn = model(target).reconstruction
        tokens = model.project_up(codes)
        image = F.normalize(model.image_head.project(model.image_head.norm(tokens.mean(dim=1))), dim=-1)
        text = model.text_embedding(batch.extras["input_ids"].long())
        logits = image @ text.T * model.logit_scale.exp()
        own = torch.arange(8)
        expected = {
            "loss/l1": (drawn - target).abs().mean(),
            "loss/l2": (drawn - target).square().mean(),
            "loss/perceptual": distance(drawn, target).mean(),
            "loss/codebook": (unit - codes).square().mean(),
            "loss/commitment": (unit - codes).square().mean(),
            "loss/contrastive": 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)),
        }
        matched = (logits.argmax(dim=1) == own).float().mean()
    weights = {"l1": 0.2, "l2": 1.0, "perceptual": 1.0, "codebook": 1.0, "commitment": 0.25, "contrastive": 1.0}
    expected["loss"] = sum(weights[name[5:]] * value for name, value in expected.items())
    metrics = unitok_task(model, perceptual=distance, perceptual_weight=1.0).step([batch], TrainState(total_steps=10))
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(float(value), rel=1e-4), name
    assert float(metrics["matched"]) == pytest.approx(float(matched))


def test_a_step_moves_every_parameter_and_nothing_of_the_networks_that_judge():
    model, distance, judge = unitok_model(), Distance(), discriminator()
    task = unitok_task(
        model,
        perceptual=distance,
        perceptual_weight=1.0,
        discriminator=judge,
        adversarial_start=0,
        adversarial_weight=0.4,
    )
    before, taps, judged = copy_of(model), copy_of(distance), copy_of(judge)
    take_steps(task, captioned_feed(), 2)
    # Codes and words that no image or text of the batches has stay; key biases of attention have no gradient.
    assert set(before) - changed(before, model) <= {name for name in before if name.endswith("k_proj.bias")}
    assert not changed(taps, distance)
    assert changed(judged, judge)


@pytest.mark.parametrize(
    ("weights", "idle", "skipped"),
    [
        (ONLY_CONTRASTIVE, {"decoder"}, lambda model: model.decoder),
        (
            {"contrastive_weight": 0.0},
            {"image_head", "text_model", "logit_scale"},
            lambda model: model.text_model,
        ),
    ],
)
def test_what_is_switched_off_is_neither_computed_nor_trained(
    weights: dict[str, float], idle: set[str], skipped: Callable[[UniTokModel], nn.Module]
):
    model = unitok_model()
    task, before, calls = unitok_task(model, **weights), copy_of(model), count_calls(skipped(model))
    metrics = take_steps(task, captioned_feed(), 2)[0]
    assert not calls
    assert parts(set(before)) - parts(changed(before, model)) == idle
    off = {name.removesuffix("_weight") for name, weight in weights.items() if not weight}
    assert not any(f"loss/{name}" in metrics for name in off)
    assert task.preview(batch_of()) is None or "contrastive_weight" in weights


def test_without_contrast_neither_texts_nor_a_text_tower_are_needed():
    task = unitok_task(unitok_model(text=False), contrastive_weight=0.0)
    batch = batch_of()
    batch.extras.clear()
    assert math.isfinite(float(task.step([batch], TrainState(total_steps=4))["loss"]))


def test_continuous_features_are_trained_without_codes():
    model = unitok_model(quantizer="none", projection="none", width=16)
    metrics = take_steps(unitok_task(model, initialise_step=None, **ONLY_CONTRASTIVE), captioned_feed(), 3)
    assert not {"usage", "loss/codebook"} & metrics[-1].keys()
    assert metrics[0]["loss"] == pytest.approx(metrics[0]["loss/contrastive"])


def test_residual_codes_are_trained_set_and_revived():
    task = unitok_task(unitok_model(quantizer="residual"), fresh_codebook=True)
    metrics = take_steps(task, captioned_feed(), 9)
    assert all(math.isfinite(step["loss"]) for step in metrics)
    assert "revived" in metrics[5]


def test_contrast_learns_which_text_belongs_to_which_image():
    task = unitok_task(initialise_step=None, revive_until=0.0, **ONLY_CONTRASTIVE)
    feed = captioned_feed(8)
    metrics = take_steps(task, feed, 80)
    assert metrics[0]["loss/contrastive"] > 1.5
    assert metrics[-1]["loss/contrastive"] < 0.5
    assert metrics[-1]["matched"] > 0.8


def test_the_temperature_has_a_floor():
    model = unitok_model()
    task = unitok_task(model)
    with torch.no_grad():
        model.logit_scale.fill_(5.0)
    take_steps(task, captioned_feed(), 1)
    assert model.logit_scale.item() == pytest.approx(math.log(100))


def test_codebooks_are_set_from_what_was_seen():
    model = unitok_model()
    task, before = unitok_task(model, fresh_codebook=True), copy_of(model)["quantizer.codebooks_CKc"]
    state = TrainState(total_steps=12)
    take_steps(task, captioned_feed(), 2, state=state)
    seen = len(task.maintainer.reservoir)
    metrics = take_steps(task, captioned_feed(), 1, state=state)[0]
    assert seen == 2 * 8 * 4  # steps x images x tokens
    assert not task.maintainer.fresh_codebook
    moved = (model.quantizer.codebooks_CKc - before).norm(dim=-1)
    assert moved.min() > 0.5  # codes are of unit length now, they were close to zero
    assert metrics["usage"] > 0.4  # of 8 codes in either codebook, for 32 tokens a step


def test_usage_is_the_mean_over_codebooks():
    model = unitok_model()
    task = unitok_task(model, initialise_step=None, revive_until=0.0, revive_every=1)
    ids_BNC = model.eval().encode(batch_of().pixel_values()).ids
    model.train()
    counts = [torch.bincount(ids_BNC[..., book].flatten(), minlength=8).double() for book in range(2)]
    shares = [count / count.sum() for count in counts]
    perplexity = [float(torch.exp(-(share * share.clamp(min=1e-30).log()).sum())) for share in shares]
    metrics = task.step([batch_of()], TrainState(total_steps=4))
    assert metrics["usage"] == pytest.approx(float(sum((count > 0).double().mean() for count in counts)) / 2)
    assert metrics["perplexity"] == pytest.approx(sum(perplexity) / 2)


def test_dead_codes_are_revived_while_the_run_is_young():
    model = unitok_model()
    with torch.no_grad():  # of each codebook but the first code all are far from every feature
        model.quantizer.codebooks_CKc[:, 1:] = -model.features(batch_of().pixel_values()).mean(dim=(0, 1))[:4] * 100
    task = unitok_task(model, initialise_step=None, revive_until=0.5, revive_every=2, revive_below=0.5)
    metrics = take_steps(task, captioned_feed(), 8, state=TrainState(total_steps=8))
    assert metrics[1]["revived"] > 0
    assert ["revived" in step for step in metrics] == [False, True, False, True, False, False, False, False]
    assert metrics[3]["usage"] > metrics[1]["usage"]


def test_the_adversarial_loss_rises_from_its_start_and_weighs_at_least_its_minimum():
    task = unitok_task(
        discriminator=discriminator(), adversarial_weight=0.4, adversarial_start=2, adversarial_warmup=2, diffaug=False,
        consistency_weight=0.0, adaptive_minimum=1000.0, initialise_step=None,
    )  # fmt: skip
    before = copy_of(task.adversary.discriminator)
    metrics = take_steps(task, captioned_feed(), 4)
    assert ["loss/generator" in step for step in metrics] == [False, False, True, True]
    assert [step["adaptive_weight"] for step in metrics[2:]] == [1000.0, 1000.0]
    assert changed(before, task.adversary.discriminator)
    names = {"loss/l1": 0.2, "loss/l2": 1.0, "loss/codebook": 1.0, "loss/commitment": 0.25, "loss/contrastive": 1.0}
    for step, rise in zip(metrics[2:], (0.5, 1.0), strict=True):
        plain = sum(weight * step[name] for name, weight in names.items())
        assert step["loss"] - plain == pytest.approx(0.4 * rise * 1000 * step["loss/generator"], rel=1e-3, abs=1e-3)


def test_balanced_consistency_compares_two_augmentations():
    task = unitok_task(discriminator=discriminator(), adversarial_weight=0.4, adversarial_start=0)
    seen: list[Tensor] = []
    task.adversary.discriminator.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    metrics = take_steps(task, captioned_feed(), 1)[0]
    real, generated, real_again, generated_again = seen[-1].chunk(4)
    assert not torch.equal(real, real_again)
    expected = 0.5 * ((real - real_again).square().mean() + (generated - generated_again).square().mean())
    assert metrics["loss/consistency"] == pytest.approx(float(expected), rel=1e-4)
    hinge = 0.5 * ((1 - real).clamp(min=0).mean() + (1 + generated).clamp(min=0).mean())
    assert metrics["loss/discriminator"] == pytest.approx(float(hinge), rel=1e-4)
    with pytest.raises(ValueError, match="no augmentation to compare"):
        unitok_task(discriminator=discriminator(), adversarial_weight=0.4, diffaug=False)


def test_two_microbatches_of_8_equal_one_of_16_but_for_their_contrast():
    tasks, metrics = [], []
    for accumulation in (1, 2):
        task = unitok_task(unitok_model(text=False), contrastive_weight=0.0, fresh_codebook=True)
        metrics.append(take_steps(task, captioned_feed(), 6, batch_size=16, accumulation=accumulation))
        tasks.append(task)
    for one, other in zip(*metrics, strict=True):
        assert other == pytest.approx(one, rel=2e-3)


def test_a_loaded_task_goes_on_bit_for_bit():
    def task() -> Any:
        return unitok_task(
            discriminator=discriminator(), adversarial_weight=0.4, adversarial_start=2, fresh_codebook=True
        )

    whole, state = task(), TrainState(total_steps=9)
    take_steps(whole, captioned_feed(), 4, state=state)
    saved = {name: _copied(value) for name, value in whole.state_dict().items()}
    expected = take_steps(whole, captioned_feed(), 5, state=state)
    resumed, again = task(), TrainState(total_steps=9, step=4, samples=32)
    resumed.load_state_dict(saved)
    assert take_steps(resumed, captioned_feed(), 5, state=again) == expected
    for left, right in ((whole.model, resumed.model), (whole.average.module, resumed.average.module)):
        assert not changed(copy_of(left), right)
    assert not changed(copy_of(whole.adversary.discriminator), resumed.adversary.discriminator)


def test_the_export_is_the_average_or_the_last_weights(tmp_path):
    for decay in (0.9, None):
        task = unitok_task(average_decay=decay)
        take_steps(task, captioned_feed(), 3)
        before = copy_of(task.model)
        task.export(tmp_path / str(decay))
        assert not changed(before, task.model)
        written = UniTokModel.from_pretrained(tmp_path / str(decay))
        expected = task.model if task.average is None else task.average.module
        assert not changed(copy_of(expected), written)
        assert bool(changed(before, written)) == (decay is not None)


def test_the_preview_draws_without_dropping_paths():
    task = unitok_task(unitok_model(drop_path=0.9))
    pairs = [task.preview(batch_of()) for _ in range(2)]
    assert torch.equal(pairs[0][1], pairs[1][1])
    assert task.model.training


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"contrastive_weight": 0.0, **ONLY_CONTRASTIVE}, "one of them must be above 0"),
        ({"adversarial_weight": 0.1, **ONLY_CONTRASTIVE}, "l1_weight, l2_weight or perceptual_weight must be above 0"),
        ({"initialise_step": 0}, "None or at least 1, so that k-means has vectors, got 0"),
    ],
)
def test_contradictory_settings(changes: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        unitok_config(**({"adversarial_weight": 0.0} | changes))


def test_missing_parts_are_named():
    with pytest.raises(ValueError, match="no perceptual network was given"):
        unitok_task(perceptual_weight=1.0)
    with pytest.raises(ValueError, match="no discriminator was given"):
        unitok_task(adversarial_weight=0.1)
    with pytest.raises(ValueError, match="the model has no text tower"):
        unitok_task(unitok_model(text=False))
    with pytest.raises(ValueError, match="encoder=False cannot be trained"):
        unitok_task(unitok_model(text=False, encoder=False), contrastive_weight=0.0)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: _copied(entry) for name, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, list) else value
