"""One real optimizer step of every stage at the paper's full size, on a CPU, with random weights, as a Markdown table.

Each stage runs in its own process, so that peak memory is measured separately, through the same task as in training, with
the recipe's precision, losses and optimizers, and batch 1; UniTok takes 2 images, since the contrastive loss needs two
pairs. Nothing is downloaded: teachers are built from their published configurations, as are the perceptual VGG16 and
UniTok's DINOv2. What a recipe starts later (k-means of the codebook, perceptual and adversarial loss) is moved to step 1.
Step 0 warms up and fills the pool for k-means; step 1 is measured.

    python benchmarks/full_size.py                 all recipes and stages: some minutes and 20 GB of memory
    python benchmarks/full_size.py --tiny          the same code on tiny models: seconds
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from semhitok.runs.planning.sizes import TOWERS

if TYPE_CHECKING:  # only the measuring processes import torch: their parent stays small
    from torch import Tensor

    from semhitok.data.feed import Batch
    from semhitok.recipes import Recipe, UniTokRecipe
    from semhitok.recipes.recipe import PixelStage
    from semhitok.tokenizers import SemHiTokConfig, SemHiTokModel, UniTokModel
    from semhitok.training.task import Task

STAGES = ("semantic", "pixel", "decoder")
RECIPES = {"semhitok_256": STAGES, "semhitok_384": STAGES, "unitok_large": ("unitok",)}

TEACHERS = {
    "semhitok_256": TOWERS["google/siglip-large-patch16-256"],
    "semhitok_384": TOWERS["google/siglip-so400m-patch14-384"],
}
TINY_TEACHER = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY_MODEL = {
    "semantic_codebook_size": 64,
    "semantic_decoder_heads": 4,
    "encoder_layers": 2,
    "encoder_width": 64,
    "encoder_heads": 4,
    "decoder_layers": 2,
    "decoder_width": 64,
    "decoder_heads": 4,
}
# 48 px with patch 14: not a multiple of the patch size, like 384 px.
TINY_IMAGE_SIZES = {"semhitok_256": 32, "semhitok_384": 48}
TINY_UNITOK: dict[str, Any] = {
    "image_size": 32,
    "stem_width": 16,
    "stage_widths": (16, 16, 128),
    "depth": 2,
    "heads": 4,
    "codebook_size": 64,
}
TINY_DINO: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

MEASURED_STEP = 1


@dataclass(frozen=True)
class Measurement:
    """One stage: images of a step; numbers of parameters; seconds to build the model and to take the measured step
    (wall-clock time, and CPU time over all threads, which other processes do not inflate); peak memory of the process.
    """

    recipe: str
    stage: str
    batch: int
    tokens: int
    trained: int
    frozen: int
    discriminator: int
    build_seconds: float
    step_seconds: float
    cpu_seconds: float
    peak_bytes: int
    loss: float


def measure(recipe_name: str, stage: str, *, tiny: bool = False) -> Measurement:
    """Build the stage, take two steps, and check that the second one trained what it should and nothing else.

    Raises:
        RuntimeError: the loss is not finite, a trained tensor did not move, or a frozen one did.
    """
    import torch

    from semhitok.training.state import TrainState

    torch.manual_seed(0)
    begun = time.perf_counter()
    model, task, steps = _unitok(tiny) if stage == "unitok" else _stage(recipe_name, stage, tiny)
    build_seconds = time.perf_counter() - begun

    batch = _batch(model, 2 if stage == "unitok" else 1)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    codebook = dict(model.get_submodule("semantic").named_buffers()) if stage in ("pixel", "decoder") else {}
    before, frozen_before = _sums(trained), _sums(frozen | codebook)
    state = TrainState(total_steps=steps)
    step_seconds, cpu_seconds, metrics = 0.0, 0.0, {}
    for state.step in range(MEASURED_STEP + 1):
        state.seed_step(rank=0)
        begun, cpu_begun = time.perf_counter(), time.process_time()
        metrics = task.step([batch], state)
        step_seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu_begun

    loss, after = float(metrics["loss"]), _sums(trained)
    still = [name for name, value in before.items() if after[name] == value]
    if not math.isfinite(loss) or still or _sums(frozen | codebook) != frozen_before:
        raise RuntimeError(f"{recipe_name} {stage}: loss {loss}, trained but unmoved: {still}, or frozen but moved")
    if stage != "semantic" and not {"loss/perceptual", "loss/generator", "loss/discriminator"} <= metrics.keys():
        raise RuntimeError(f"{recipe_name} {stage}: the measured step lacks a loss, it has {sorted(metrics)}")
    adversary = getattr(task, "adversary", None)
    return Measurement(
        recipe=recipe_name,
        stage=stage,
        batch=len(batch),
        tokens=model.num_tokens,
        trained=sum(p.numel() for p in trained.values()),
        frozen=sum(p.numel() for p in frozen.values()),
        discriminator=sum(p.numel() for p in adversary.discriminator.parameters()) if adversary else 0,
        build_seconds=build_seconds,
        step_seconds=step_seconds,
        cpu_seconds=cpu_seconds,
        peak_bytes=peak_memory(),
        loss=loss,
    )


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def table(measurements: list[Measurement]) -> str:
    """Markdown, one row per stage."""
    rows = [
        "| recipe | stage | batch | tokens | trained | frozen | discriminator | build | one step | its CPU time | peak memory | loss |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in measurements:
        counts = " | ".join(f"{count / 1e6:.1f}M" for count in (entry.trained, entry.frozen, entry.discriminator))
        rows.append(
            f"| `{entry.recipe}` | {entry.stage} | {entry.batch} | {entry.tokens} | {counts} | {entry.build_seconds:.1f} s "
            f"| {entry.step_seconds:.1f} s | {entry.cpu_seconds:.1f} s | {entry.peak_bytes / 2**30:.2f} GiB | {entry.loss:.3f} |"
        )
    return "\n".join(rows)


def main() -> int:
    """Measure the selected stages; exit code 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=RECIPES, help="one recipe instead of all")
    parser.add_argument("--stage", choices=(*STAGES, "unitok"), help="one stage instead of all")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try the benchmark itself")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(asdict(measure(arguments.recipe, arguments.stage, tiny=arguments.tiny))))
        return 0

    measurements, failures = [], []
    for recipe in [arguments.recipe] if arguments.recipe else RECIPES:
        for stage in [arguments.stage] if arguments.stage else RECIPES[recipe]:
            print(f"{recipe} {stage} ...", file=sys.stderr, flush=True)
            command = [sys.executable, __file__, "--worker", "--recipe", recipe, "--stage", stage]
            done = subprocess.run(command + ["--tiny"] * arguments.tiny, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                failures.append(f"{recipe} {stage} ended with code {done.returncode} (-9: out of memory)")
            else:
                measurements.append(Measurement(**json.loads(done.stdout.splitlines()[-1])))
    print(table(measurements))
    threads = os.environ.get("OMP_NUM_THREADS", f"{os.cpu_count()} (all)")
    print(f"\nbf16 autocast, CPU threads: {threads}; Python {platform.python_version()}, ", end="")
    print(", ".join(f"{package} {version(package)}" for package in ("torch", "transformers", "semhitok")) + ".")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def _batch(model: SemHiTokModel | UniTokModel, count: int) -> Batch:
    """Random images, and random texts where the model has a text tower."""
    import torch

    from semhitok.data.feed import Batch

    size, extras = model.config.image_size, {}
    text = getattr(model.config, "text_config", None)
    if text is not None:
        extras["input_ids"] = torch.randint(0, text.vocab_size - 2, (count, text.max_position_embeddings))
        extras["input_ids"][:, 0], extras["input_ids"][:, -1] = text.bos_token_id, text.eos_token_id
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    return Batch(images, torch.arange(count), torch.zeros(count, dtype=torch.bool), extras)


def _stage(recipe_name: str, stage: str, tiny: bool) -> tuple[SemHiTokModel, Task, int]:
    """Model, task and number of steps of one of SemHiTok's stages."""
    from semhitok.tokenizers import SemHiTokModel

    recipe = _recipe(recipe_name, tiny)
    # Not enhance_decoder or from_teacher: with random weights their copies would only double the memory.
    model = SemHiTokModel(_model_config(recipe, stage, tiny))
    loop = recipe.semantic.loop if stage == "semantic" else _pixel_stage(recipe, stage).loop
    return model, _task(recipe, stage, model), loop.steps


def _unitok(tiny: bool) -> tuple[UniTokModel, Task, int]:
    """Model, task and number of steps of ``unitok_large``, with a random DINOv2."""
    from transformers import Dinov2Config, Dinov2Model

    from semhitok.losses import DinoDiscriminator, VGGPerceptual, dinov2_small_config
    from semhitok.recipes.unitok import unitok_large
    from semhitok.tokenizers import UniTokConfig, UniTokModel
    from semhitok.tokenizers.unitok.text import clip_text_tokenizer, text_tower_config
    from semhitok.training.tasks.unitok import UniTokTask

    recipe: UniTokRecipe = unitok_large()
    text = text_tower_config(clip_text_tokenizer())
    fields, dino, image_size, taps = recipe.model, dinov2_small_config(), 224, (0, 2, 5, 8, 11)
    if tiny:
        fields, dino, image_size, taps = fields | TINY_UNITOK, Dinov2Config(**TINY_DINO), 28, (0, 1)
        text = text_tower_config(clip_text_tokenizer(), width=32, layers=1, heads=2)
    model = UniTokModel(UniTokConfig(**fields, text_config=text))
    discriminator = DinoDiscriminator(Dinov2Model(dino), taps=taps, image_size=image_size, kernel_size=3 if tiny else 9)
    perceptual = VGGPerceptual(deepest_layer=recipe.perceptual_depth)
    task = UniTokTask(
        model, replace(_early(recipe.task), adversarial_warmup=0), perceptual=perceptual, discriminator=discriminator
    )
    return model, task, recipe.loop.steps


def _early(task: Any) -> Any:
    """The task with late starts moved to the measured step."""
    starts = dict.fromkeys(("initialise_step", "perceptual_start", "adversarial_start"), MEASURED_STEP)
    # No warm-up: its first rates are too small to change a norm's weight of 1 in fp32, so the check would miss it.
    return replace(
        task,
        optimizer=replace(task.optimizer, warmup_steps=0),
        **{field: step for field, step in starts.items() if getattr(task, field, None) is not None},
    )


def _recipe(name: str, tiny: bool) -> Recipe:
    """The published recipe; its late starts moved to the measured step."""
    from semhitok.recipes import RECIPES as PUBLISHED

    recipe = PUBLISHED[name]()
    if tiny:
        recipe = replace(
            recipe,
            teacher_image_size=TINY_IMAGE_SIZES[name],
            model=recipe.model | TINY_MODEL | {"image_size": TINY_IMAGE_SIZES[name]},
            enhanced_decoder=replace(recipe.enhanced_decoder, layers=3, width=96, heads=4),
        )
    return replace(
        recipe,
        semantic=replace(recipe.semantic, task=_early(recipe.semantic.task)),
        pixel=replace(recipe.pixel, task=_early(recipe.pixel.task)),
        decoder=replace(recipe.decoder, task=_early(recipe.decoder.task)),
    )


def _model_config(recipe: Recipe, stage: str, tiny: bool) -> SemHiTokConfig:
    from transformers import SiglipVisionConfig

    from semhitok.teachers import TeacherConfig
    from semhitok.tokenizers import SemHiTokConfig

    backbone: dict[str, Any] = TEACHERS[recipe.name] | (
        TINY_TEACHER | {"image_size": recipe.teacher_image_size} if tiny else {}
    )
    teacher = TeacherConfig(
        backbone_config=SiglipVisionConfig(**backbone), image_size=recipe.teacher_image_size, layer=recipe.teacher_layer
    )
    larger = recipe.enhanced_decoder
    fields = dict(recipe.model)
    if stage == "decoder":
        fields |= {"decoder_layers": larger.layers, "decoder_width": larger.width, "decoder_heads": larger.heads}
    return SemHiTokConfig(teacher, **fields)


def _task(recipe: Recipe, stage: str, model: SemHiTokModel) -> Task:
    from semhitok.losses import VGGPerceptual
    from semhitok.training.tasks.pixel import PixelTask
    from semhitok.training.tasks.semantic import SemanticTask

    if stage == "semantic":
        return SemanticTask(model, recipe.semantic.task)
    perceptual = VGGPerceptual(deepest_layer=recipe.perceptual_depth)
    return PixelTask(model, _pixel_stage(recipe, stage).task, perceptual=perceptual, fresh_codebook=stage == "pixel")


def _pixel_stage(recipe: Recipe, stage: str) -> PixelStage:
    return recipe.decoder if stage == "decoder" else recipe.pixel


def _sums(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """A checksum for each tensor, as copies of the tensors would count as the step's memory."""
    import torch

    return {name: tensor.detach().sum(dtype=torch.float64).item() for name, tensor in tensors.items()}


if __name__ == "__main__":
    sys.exit(main())
