"""On a GPU: images per second, model FLOPs utilisation and peak memory, with and without compiled blocks.

    python -m benchmarks.accelerator [--quick]

Without a GPU it says so and measures nothing. Floating-point operations are counted by torch for one actual pass; MFU
relates them to the dense bf16 rate in the device's data sheet or, if that rate is unknown, to that of a large bf16 matrix
product measured here, which makes MFU look better (the row names the source).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from benchmarks.measuring import Operation, Timing, interleaved
from benchmarks.models import random_images, random_model, recipe_named
from benchmarks.reporting import Report, Row, run_alone
from benchmarks.training_parts import TOTAL_STEPS, random_batch, training_task
from torch.utils.flop_counter import FlopCounterMode

from semhitok.training.compilation import compile_blocks
from semhitok.training.state import TrainState
from semhitok.training.tasks.precision import autocast

CASES = (("mini", 128), ("semhitok_256", 32))
QUICK_CASES = (("nano", 16),)
# Dense bf16 rates from the manufacturers' data sheets, in operations per second, by a part of the device's name.
DATA_SHEETS = {"H100 80GB HBM3": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}
JOBS = ("encode", "decode", "training step")


@dataclass(frozen=True)
class Measured:
    """One job of one model: its timing, and its peak memory above what was allocated before."""

    timing: Timing
    memory: int


def measure(quick: bool) -> Report:
    """Eager, then compiled: not interleaved, as two models with their optimizers may not fit at once.

    Raises:
        RuntimeError: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("this benchmark needs a GPU and found none")
    rate, source = peak_rate()
    rows = []
    for name, batch in QUICK_CASES if quick else CASES:
        found: dict[str, dict[str, Measured]] = {}
        operations: dict[str, float] = {}
        for mode in ("eager", "compiled"):
            jobs = jobs_of(name, batch, "cuda", compiled=mode == "compiled")
            found[mode] = {job: _measured(operation, rounds=3 if quick else 10) for job, operation in jobs.items()}
            # Counted on eager passes for both: operations that compilation removes are not work done.
            operations = operations or {job: count_operations(operation) for job, operation in jobs.items()}
            del jobs
            torch.cuda.empty_cache()
        for job in JOBS:
            eager, compiled = found["eager"][job], found["compiled"][job]
            what = f"`{name}`, {job}, batch {batch}"
            rows += job_rows(what, batch, eager, compiled, operations[job], rate, source)
    return Report(
        name="accelerator",
        title="On a GPU",
        method="Random weights, bf16 autocast, the training step with all losses and the teacher. MFU: operations of one "
        f"pass per second against {source}.",
        rows=rows,
    )


def job_rows(
    what: str, batch: int, eager: Measured, compiled: Measured, operations: float, rate: float, source: str
) -> list[Row]:
    """Images per second and memory with and without compilation, and MFU of both."""
    per_second = [batch / measured.timing.seconds.median for measured in (compiled, eager)]
    memory = ("compiled", float(compiled.memory)), ("eager", float(eager.memory))
    rows = [
        Row.of_amounts(what, ("compiled", per_second[0]), ("eager", per_second[1]), "images/s"),
        Row.of_amounts(f"{what}, memory", *memory, "bytes"),
    ]
    for mode, measured in (("eager", eager), ("compiled", compiled)):
        achieved = operations / measured.timing.seconds.median
        rows.append(Row.of_amounts(f"{what}, MFU", (mode, achieved / 1e12), (source, rate / 1e12), "TFLOP/s"))
    return rows


def peak_rate() -> tuple[float, str]:
    """Peak operations per second of this GPU, and the source of that number."""
    name = torch.cuda.get_device_name()
    for part, rate in DATA_SHEETS.items():
        if part in name:
            return rate, "data sheet"
    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = interleaved({"matmul": lambda: a @ b}, rounds=10)["matmul"].seconds.median
    return 2 * size**3 / seconds, "measured matmul"


def count_operations(operation: Operation) -> float:
    """Floating-point operations of the matrix products, convolutions and attentions of one call."""
    with FlopCounterMode(display=False) as counter:
        operation()
    return float(counter.get_total_flops())


def jobs_of(name: str, batch: int, device: str, *, compiled: bool) -> dict[str, Operation]:
    """Encode, decode and training step of a fresh model."""
    recipe = recipe_named(name)
    model = random_model(recipe, device=device)
    images = random_images(batch, model.config.image_size, device=device)
    ids = model.encode(images).ids
    task = training_task(recipe, "pixel", model)
    if compiled:
        compile_blocks(model)
    data, state = random_batch(batch, model.config.image_size, device=device), TrainState(total_steps=TOTAL_STEPS)

    def encode() -> object:
        with autocast("bf16", images.device):
            return model.encode(images)

    def decode() -> object:
        with autocast("bf16", images.device):
            return model.decode(ids)

    return dict(zip(JOBS, (encode, decode, lambda: task.step([data], state)), strict=True))


def _measured(operation: Operation, *, rounds: int) -> Measured:
    operation()  # compiles, and allocates persistent buffers
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    timing = interleaved({"": operation}, rounds=rounds)[""]
    return Measured(timing, torch.cuda.max_memory_allocated() - before)


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("no GPU here: nothing to measure")
    run_alone(measure, __doc__)
