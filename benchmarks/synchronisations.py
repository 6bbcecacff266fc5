"""How often the host waits for the GPU: in one step of every training task and for one generated token.

    python -m benchmarks.synchronisations

Counted on a simulated GPU (see ``benchmarks/simulated_gpu.py``), on tiny models: the numbers do not depend on sizes. Steps are those
between two dead-code replacements, once all losses have begun. The loop itself waits once more, to read the numbers that it logs.
"""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.simulated_gpu import GPU, SimulatedGPU, describe
from tests.data.records_on_disk import write_scenes
from tests.mllm.tiny_mllm import codes_mllm, image_tokenizer, mllm, processor
from tests.tiny import Distance, optimizer, pixel_config, pixels, semantic_config, tiny_feed, tiny_model
from tests.tiny_unitok_training import captioned_feed, unitok_config, unitok_model
from tests.training.tasks.language_feed import feed

from semhitok.data.feed import Batch, MemoryFeed, StreamFeed
from semhitok.data.sources import ImageFolder
from semhitok.losses import PatchDiscriminator
from semhitok.mllm import Sampling
from semhitok.mllm.image_generation import stream_tokens
from semhitok.training.state import TrainState
from semhitok.training.task import Task
from semhitok.training.tasks.joint import JointConfig, JointTask
from semhitok.training.tasks.language import LanguageTask
from semhitok.training.tasks.language_config import LanguageConfig
from semhitok.training.tasks.pixel import PixelTask
from semhitok.training.tasks.semantic import SemanticTask
from semhitok.training.tasks.unitok import UniTokTask
from semhitok.training.tasks.word_alignment import WordAlignmentTask

Waits = Counter[tuple[str, str]]
STEPS = 5  # the last one is ordinary: every loss has begun, and no interval of three steps ends


def semantic(device: torch.device) -> SemanticTask:
    return SemanticTask(tiny_model().to(device), semantic_config())


def pixel(device: torch.device) -> PixelTask:
    distance = Distance().to(device)
    return PixelTask(
        tiny_model().to(device), pixel_config(perceptual_weight=0.1), perceptual=distance, fresh_codebook=True
    )


def joint(device: torch.device) -> JointTask:
    return JointTask(tiny_model().to(device), JointConfig(semantic=semantic_config(), pixel=pixel_config()))


def unitok(device: torch.device) -> UniTokTask:
    torch.manual_seed(0)
    return UniTokTask(
        unitok_model().to(device),
        unitok_config(),
        perceptual=None,
        discriminator=PatchDiscriminator(8).to(device),
        fresh_codebook=True,
    )


def language(device: torch.device, *, several: bool = False, words: bool = False) -> LanguageTask:
    torch.manual_seed(0)
    model = copy.deepcopy(codes_mllm() if several else mllm(tokenizer=image_tokenizer()))  # its tokenizer is shared
    config = LanguageConfig(optimizer=optimizer(), trained="all", precision="fp32")
    kind = WordAlignmentTask if words else LanguageTask
    return kind(model.to(device), config, processor=processor(model))


def steps(task: Task, batches: Iterator[Batch], device: torch.device) -> tuple[list[float], Waits]:
    """The loss of each step, and the waits that the last one caused."""
    counter, losses = SimulatedGPU(), []
    for step in range(STEPS):
        batch, state = _moved(next(batches), device), TrainState(total_steps=2 * STEPS, step=step)
        state.seed_step(0)
        counter.waits.clear()
        metrics = task.step([batch], state)
        waits = Counter(counter.waits)
        losses.append(float(metrics["loss"]))
    return losses, waits


def tasks(scenes: Path) -> dict[str, Callable[[torch.device], tuple[Task, Iterator[Batch]]]]:
    """Every task with its batches, on a device."""

    def records(device: torch.device, task: LanguageTask) -> tuple[Task, Iterator[Batch]]:
        kinds = ("caption",) if isinstance(task, WordAlignmentTask) else ("caption", "text_to_image")
        return task, feed(task.model, scenes, kinds=kinds).batches(0, 4)

    return {
        "semantic": lambda device: (semantic(device), tiny_feed().batches(0, 8)),
        "pixel, adversarial": lambda device: (pixel(device), tiny_feed().batches(0, 8)),
        "joint, adversarial": lambda device: (joint(device), tiny_feed().batches(0, 8)),
        "UniTok, adversarial": lambda device: (unitok(device), captioned_feed().batches(0, 8)),
        "language": lambda device: records(device, language(device)),
        "language, several codes": lambda device: records(device, language(device, several=True)),
        "word alignment": lambda device: records(device, language(device, words=True)),
    }


def generation() -> dict[str, Waits]:
    """The waits for one token of an image, with guidance, and of a text; call it within ``SimulatedGPU``."""
    found, counter = {}, SimulatedGPU()
    for name, model in (("one code", mllm(tokenizer=image_tokenizer())), ("several codes", codes_mllm())):
        model = copy.deepcopy(model).to(GPU).eval()
        prompt = torch.randint(5, 20, (2, 6), generator=torch.Generator().manual_seed(0)).to(GPU)
        tokens = stream_tokens(model, prompt, guidance=3.0, sampling=Sampling())
        next(tokens)
        next(tokens)
        found[f"image token, {name}"] = counter.count(lambda tokens=tokens: next(tokens))
        tokens.close()  # pyright: ignore[reportAttributeAccessIssue]
        for mode in ("text", "interleaved") if name == "one code" else ("text",):
            few, many = (
                counter.count(
                    lambda count=count, mode=mode, model=model, prompt=prompt: model.generate(
                        prompt, generation_mode=mode, min_new_tokens=count, max_new_tokens=count, do_sample=False
                    )
                )
                for count in (4, 5)
            )
            found[f"{mode} token, {name}"] = many - few
    return found


def inference() -> dict[str, Waits]:
    """The waits of encoding and decoding a batch; call it within ``SimulatedGPU``."""
    found, counter = {}, SimulatedGPU()
    for name, model in (("SemHiTok", tiny_model()), ("UniTok", unitok_model().eval())):
        images, moved = pixels(4).to(GPU), model.to(GPU)
        ids = moved.encode(images).ids
        found[f"encode, {name}"] = counter.count(lambda moved=moved, images=images: moved.encode(images))
        found[f"decode, {name}"] = counter.count(lambda moved=moved, ids=ids: moved.decode(ids))
    return found


def feeds(scenes: Path) -> dict[str, Waits]:
    """The waits for one batch of each feed, read and copied to the GPU; call it within ``SimulatedGPU``."""
    found, counter = {}, SimulatedGPU()
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    extras = {"ids": np.zeros((8, 2, 16), dtype=np.int32)}
    in_memory = MemoryFeed(images, seed=0, flip=True, extras=extras, device=GPU)
    photographs = ImageFolder(Path(__file__).parents[1] / "examples" / "scenes")
    streamed = StreamFeed(photographs, 32, 32, seed=0, flip=True, device=GPU, workers=0)
    packed = feed(mllm(tokenizer=image_tokenizer()), scenes, kinds=("caption", "text_to_image"), device=GPU)
    for name, each in {"in memory": in_memory, "streamed": streamed, "packed rows": packed}.items():
        batches = each.batches(0, 4)
        next(batches)
        found[f"batch, {name}"] = counter.count(lambda batches=batches: next(batches))
    return found


def count(scenes: Path) -> tuple[dict[str, list[float]], dict[str, Waits]]:
    """The losses of every task on the simulated GPU, and all waits by name; their places are lines of the package."""
    losses: dict[str, list[float]] = {}
    found: dict[str, Waits] = {}
    with SimulatedGPU():
        for name, build in tasks(scenes).items():
            losses[name], found[f"step: {name}"] = steps(*build(GPU), GPU)
        return losses, found | feeds(scenes) | generation() | inference()


def main() -> None:
    """Print one line per kind of work, and the places below it."""
    with tempfile.TemporaryDirectory() as folder:
        _, found = count(write_scenes(Path(folder) / "scenes", 24))
    for name, waits in found.items():
        print(f"{name}: {sum(waits.values())}")
        if waits:
            print(describe(waits.items()))


def _moved(batch: Batch, device: torch.device) -> Batch:
    extras: dict[str, Any] = {name: value.to(device) for name, value in batch.extras.items()}
    return Batch(batch.images_BCHW.to(device), batch.indices_B.to(device), batch.flipped_B.to(device), extras)


if __name__ == "__main__":
    main()
