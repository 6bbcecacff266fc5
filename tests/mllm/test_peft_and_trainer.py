"""The model under peft and ``Trainer``, its processor in workers of a ``DataLoader``, and under ``torch.compile``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import (
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)
from PIL import Image
from tests.mllm.tiny_mllm import mllm, processor
from tests.tiny import pixels
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.modeling import TOKENIZER_MODULES


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8))


def collate(processing: SemHiTokMLLMProcessor, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    batch = processing([sample["image"] for sample in samples], [sample["text"] for sample in samples])
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return {**batch, "labels": labels}


SAMPLES = [{"image": picture(seed), "text": f"what is <image> {'the red cat ' * seed}"} for seed in range(4)]


def batch_of(model: SemHiTokForConditionalGeneration) -> dict[str, Tensor]:
    return collate(processor(model), SAMPLES[:2])


def in_the_tokenizer(model: torch.nn.Module) -> list[str]:
    """Names of trainable tensors in the image tokenizer."""
    return [name for name, each in model.named_parameters() if "image_tokenizer" in name and each.requires_grad]


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_lora_trains_nothing_in_the_tokenizer(targets: Any):
    model = mllm()
    ids, batch = model.image_tokenizer.encode(pixels(4)).ids, batch_of(model)
    adapted = get_peft_model(model, LoraConfig(target_modules=targets, r=4)).train()
    assert in_the_tokenizer(adapted) == []
    trained = [each for each in adapted.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1)
    for _ in range(2):
        loss = adapted(**batch).loss
        loss.backward()
        optimizer.step()
    assert all(each.grad is not None for each in trained), "no rank waits for a tensor that is not used"
    assert torch.equal(model.image_tokenizer.encode(pixels(4)).ids, ids)


def test_lora_stays_out_of_the_tokenizer_and_merges(tmp_path: Path):
    batch = batch_of(mllm())
    config = LoraConfig(target_modules="all-linear", exclude_modules=TOKENIZER_MODULES, r=4, init_lora_weights=False)
    adapted = get_peft_model(mllm(), config).eval()
    assert not [name for name, _ in adapted.named_parameters() if "lora" in name and "image_tokenizer" in name]
    with torch.no_grad():
        wanted = adapted(**batch).logits
        adapted.save_pretrained(tmp_path)
        again = PeftModel.from_pretrained(mllm(), tmp_path)
        assert torch.equal(again(**batch).logits, wanted)
        torch.testing.assert_close(again.merge_and_unload()(**batch).logits, wanted, atol=1e-4, rtol=1e-4)


def test_prefix_tuning_with_images():
    model = mllm()
    batch = batch_of(model)
    tuned = get_peft_model(model, PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3)).train()
    tuned(**batch).loss.backward()
    trained = {name: each for name, each in tuned.named_parameters() if each.requires_grad}
    assert list(trained) == ["prompt_encoder.default.embedding.weight"]
    assert all(each.grad.abs().sum() > 0 for each in trained.values())
    prompt = {name: value for name, value in batch.items() if name != "labels"}
    assert tuned.eval().generate(**prompt, max_new_tokens=3).shape[1] == batch["input_ids"].shape[1] + 3


def test_prompt_tuning_with_images_starts_from_embeddings():
    model = mllm()
    filled = model.fill_inputs(batch_of(model))
    tuned = get_peft_model(model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3))
    ids = filled.pop("input_ids")
    output = tuned(inputs_embeds=model.embed(ids), **filled)
    output.loss.backward()
    assert tuned.prompt_encoder["default"].embedding.weight.grad.abs().sum() > 0
    prompt = tuned.get_prompt(batch_size=len(ids)).detach()
    mask = torch.nn.functional.pad(filled["attention_mask"], (3, 0), value=1)
    with torch.no_grad():
        wanted = model(inputs_embeds=torch.cat([prompt, model.embed(ids)], dim=1), attention_mask=mask).logits
    torch.testing.assert_close(output.logits, wanted)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_trainer(smoothing: float, tmp_path: Path):
    model = mllm()
    processing, ids = processor(model), model.image_tokenizer.encode(pixels(4)).ids
    before = model.lm_head.weight.detach().clone()
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        label_smoothing_factor=smoothing,
        learning_rate=1e-2,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    prepared = functools.partial(collate, processing)
    if smoothing:  # labels are used outside the model: fill them first
        collated, prepared = prepared, lambda samples: model.fill_inputs(collated(samples), shift_labels=True)
    trainer = Trainer(model, arguments, data_collator=prepared, train_dataset=SAMPLES)  # pyright: ignore
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert max(losses) < 10, "about log of the 130 ids"
    assert not torch.equal(model.lm_head.weight, before)
    assert torch.equal(model.image_tokenizer.encode(pixels(4)).ids, ids)
    if not smoothing:
        trainer.save_model(str(tmp_path / "model"))
        loaded = SemHiTokForConditionalGeneration.from_pretrained(tmp_path / "model")
        assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_processor_works_in_workers(method: str):
    prepare = functools.partial(collate, processor(mllm()))
    here = list(DataLoader(SAMPLES, batch_size=2, collate_fn=prepare))  # pyright: ignore
    there = DataLoader(SAMPLES, batch_size=2, collate_fn=prepare, num_workers=1, multiprocessing_context=method)  # pyright: ignore
    for found, wanted in zip(there, here, strict=True):
        for name in wanted:
            assert torch.equal(found[name], wanted[name])


@torch.no_grad()
def test_compiled_layers():
    model = mllm()
    batch = {name: value for name, value in batch_of(model).items() if name != "labels"}
    wanted = model(**batch, use_cache=False).logits
    model.language_model.compile(backend="eager")
    torch.testing.assert_close(model(**batch, use_cache=False).logits, wanted)
