"""A tiny autoencoder task for the tests of the loop; as a script it trains in DIRECTORY and is killed in STEP."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from semhitok import distributed
from semhitok.data.feed import Batch, MemoryFeed
from semhitok.training.loop import LoopConfig, train
from semhitok.training.optim import OptimizerConfig, build_adamw, take_step
from semhitok.training.state import TrainState
from semhitok.training.weight_average import WeightAverage

CONFIG = LoopConfig(steps=30, batch_size=4, accumulation=2, log_every=4, checkpoint_every=7)


class TinyModel(nn.Module):
    """Convolution, dropout (uses the global generator), convolution, and a running mean as a buffer."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(3, 4, 2, stride=2)
        self.dropout = nn.Dropout(0.2)
        self.decoder = nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.decoder(self.dropout(self.encoder(pixels_BCHW)))


class TinyTask:
    """Trains ``TinyModel`` by squared error.

    Args:
        broken_at: step whose loss is not a number.
        dropout: share of features dropped.
    """

    def __init__(self, *, broken_at: int | None = None, dropout: float = 0.2):
        torch.manual_seed(0)
        self.model = TinyModel()
        self.model.dropout.p = dropout
        self.average = WeightAverage(self.model, decay=0.9)
        self.config = OptimizerConfig(learning_rate=1e-2, warmup_steps=2, clip_norm=1.0)
        self.optimizer = build_adamw(self.model, self.config)
        self.broken_at = broken_at
        self.seen: list[int] = []

    def step(self, microbatches: Sequence[Batch], state: TrainState) -> dict[str, float | Tensor]:
        losses = []
        for number, batch in enumerate(microbatches, start=1):
            pixels = batch.pixel_values()
            noise = torch.randn((), generator=state.generator("noise"))
            loss = (self.model(pixels) - pixels).square().mean() + 0 * noise
            with distributed.averaged_gradients(self.model.parameters(), now=number == len(microbatches)):
                (loss / len(microbatches)).backward()
            mean = distributed.average_values({"mean": float(pixels.mean())})["mean"]  # every rank holds the same
            self.model.mean.lerp_(mean + 0.01 * noise, 0.1)
            losses.append(loss.detach())
            self.seen += batch.indices_B.tolist()
        figures = take_step(self.optimizer, self.config, state.step, state.total_steps)
        self.average.update(self.model)
        loss = torch.stack(losses).mean()
        if state.step == self.broken_at:
            loss = loss * float("nan")
        return {"loss": loss, "psnr": 10.0, "usage": 0.5, **figures}

    def preview(self, batch: Batch) -> tuple[Tensor, Tensor]:
        pixels = batch.pixel_values()
        with torch.no_grad():
            return pixels, self.average.module.eval()(pixels)

    def state_dict(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping) -> None:
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def export(self, directory: Path | None) -> None:
        if directory is not None:
            save_file(dict(self.average.module.state_dict()), directory / "model.safetensors")

    def describe(self) -> str:
        return "tiny task"


class SignallingTask(TinyTask):
    """Sends a signal to its own process in the middle of a step."""

    def __init__(self, number: int, at: int):
        super().__init__()
        self.number, self.at = number, at

    def step(self, microbatches: Sequence[Batch], state: TrainState) -> dict[str, float | Tensor]:
        if state.step == self.at:
            os.kill(os.getpid(), self.number)
        return super().step(microbatches, state)


def tiny_feed(count: int = 24, *, flip: bool = True) -> MemoryFeed:
    """Random 8 px images."""
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
    return MemoryFeed(images, seed=3, flip=flip)


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(SignallingTask(signal.SIGKILL, at=int(sys.argv[2])), tiny_feed(), CONFIG, Path(sys.argv[1]))
