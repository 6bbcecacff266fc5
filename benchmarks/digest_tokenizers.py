"""Tokenizers for ``digests``: the bundled one, every stage and system of training, a converted checkpoint."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import torch
from benchmarks.digest_material import PHOTOGRAPHS, SCENES
from benchmarks.digest_record import Digests, run, steps


def tokenizer(digests: Digests) -> None:
    """The shipped tokenizer through every command that takes one."""
    for ending in ("npy", "json", "safetensors"):
        digests.run(f"encode {PHOTOGRAPHS} --out shipped/ids.{ending} --batch-size 4")
        digests.run(f"decode shipped/ids.{ending} --out shipped/decoded_{ending}")
    for fit, images in (("crop", ""), ("resize", ""), ("tile", "/chelsea.jpg")):
        digests.run(f"reconstruct {PHOTOGRAPHS}{images} --fit {fit} --out shipped/{fit}")
    digests.run(f"codes {PHOTOGRAPHS} {SCENES} --out shipped/codes")
    digests.run("codes images --by used --top 4 --context 2 --fit resize --out shipped/used")
    for name in ("nano", "mllm_nano"):
        digests.run(f"inspect {name}")
        digests.run(f"inspect {name} --json")
    options = "--probe-train scenes/train --before nano --out shipped/evaluation"
    digests.run(f"evaluate nano {PHOTOGRAPHS} many test=scenes/shared {options}")
    digests.folder("shipped")


def train_tokenizers(digests: Digests) -> None:
    """All stages, the joint one, other quantizers, UniTok; every part of a loss begins within the run."""
    place = "--data images --device cpu --data.workers 0"
    semantic = "--model.semantic-codebook-size 32 --semantic.task.revive-every 4 --semantic.task.revive-below 0.5"
    pixel = "--pixel.task.initialise-step 3 --pixel.task.revive-every 4 --pixel.task.revive-below 0.5"
    pixel += " --pixel.task.adversarial-weight 0.1 --pixel.task.adversarial-start 5"
    late = "--pixel-finetune.task.adversarial-start 5 --decoder.task.adversarial-start 5"
    late += f" --validation {PHOTOGRAPHS} --pixel.loop.evaluate-every 10 --pixel-finetune.loop.accumulation 2"
    loops = steps("semantic.", "pixel.", "pixel-finetune.", "decoder.")
    run(f"train nano {place} --out runs/nano {loops} {semantic} {pixel} {late}")
    digests.training("runs/nano/semantic", "runs/nano/pixel", "runs/nano/pixel-finetune", "runs/nano/decoder")

    joint = "--stage joint --teacher teacher --teacher-image-size 64 --model.concat length --data.flip"
    joint += " --semantic.task.precision fp32 --pixel.task.precision fp32 --data.memory-limit 1"  # a stream
    run(f"train nano {place} --out runs/joint {steps('semantic.', 'pixel.')} {semantic} {pixel} {joint}")
    digests.training("runs/joint/joint")
    for quantizer in ("vanilla", "normalized"):
        options = f"--stage semantic --model.semantic-quantizer {quantizer} --data.flip"
        run(f"train nano {place} --out runs/{quantizer} {steps('semantic.')} {semantic} {options}")
        digests.training(f"runs/{quantizer}/semantic")

    options = "--task.adversarial-weight 0.1 --task.adversarial-start 5 --task.perceptual-weight 0.1"
    options += " --task.initialise-step 3 --task.revive-every 4 --task.revive-below 0.5 --model.codebook-size 16"
    options += f" --text.vocab-size 600 --validation {PHOTOGRAPHS}"
    run(f"train unitok_nano {place} --out runs/unitok {steps('')} {options}")
    digests.training("runs/unitok")


def train_teacher(digests: Digests) -> None:
    """The contrastive task, which no command trains."""
    from benchmarks.teacher_candidates import open_source, small_siglip, train_teacher

    recipe = small_siglip()
    loop = replace(recipe.loop, steps=20, batch_size=4, log_every=1)
    recipe = replace(recipe, images=24, loop=loop, backbone=recipe.backbone | {"num_hidden_layers": 2})
    with redirect_stdout(io.StringIO()):
        train_teacher(recipe, open_source("scenes/train"), Path("runs/teacher"), device=torch.device("cpu"))
    digests.training("runs/teacher")


def released_unitok(digests: Digests) -> None:
    """A checkpoint in the released format, converted."""
    from tests.tokenizers.unitok.released import unitok_checkpoint

    torch.save(unitok_checkpoint(), "unitok_tokenizer.pth")
    digests.run("convert unitok unitok_tokenizer.pth converted --dtype bfloat16")
    digests.folder("converted")
