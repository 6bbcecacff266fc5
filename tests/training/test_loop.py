"""The training loop: exact resume, clean stops, and errors that leave the last good checkpoint."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.training.tiny_task import CONFIG, SignallingTask, TinyTask, tiny_feed

from semhitok.data.feed import StreamFeed
from semhitok.data.randomness import SampleOrder
from semhitok.data.sources import ImageFolder
from semhitok.storage.atomic import WriteError
from semhitok.storage.lock import LockedError, locked_directory
from semhitok.training import checkpoint
from semhitok.training.loop import LoopConfig, train
from semhitok.training.metrics import read_metrics
from semhitok.training.task import TrainingError


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model" / "model.safetensors")


def last_checkpoint(directory: Path) -> dict[str, torch.Tensor]:
    path = checkpoint.latest(directory / "checkpoints")
    assert path is not None
    return load_file(path / "tensors.safetensors")


def assert_same_run(one: Path, other: Path) -> None:
    """Exported weights, the last checkpoint's tensors and the logged losses agree bit for bit."""
    first, second = last_checkpoint(one), last_checkpoint(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())
    logs = [[(entry["step"], entry["loss"]) for entry in read_metrics(path / "metrics.jsonl")] for path in (one, other)]
    assert logs[0] == logs[1]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums in another process have the same order only with the same number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("uninterrupted")
    state = train(TinyTask(), tiny_feed(), CONFIG, directory)
    assert (state.step, state.samples, state.finished, state.interrupted) == (30, 120, True, False)
    return directory


def test_a_run_leaves_its_log_pictures_checkpoints_and_model(uninterrupted: Path):
    entries = read_metrics(uninterrupted / "metrics.jsonl")
    assert [entry["step"] for entry in entries] == [4, 7, 8, 12, 14, 16, 20, 21, 24, 28, 30]
    assert entries[-1]["loss"] < entries[0]["loss"]
    assert {"images_per_second", "seconds", "learning_rate", "gradient_norm"} <= entries[0].keys()
    assert sorted(path.name for path in (uninterrupted / "checkpoints").iterdir()) == ["step_00000028", "step_00000030"]
    with Image.open(uninterrupted / "previews" / "step_00000030.png") as picture:
        assert picture.width == 8 * 128 + 7 * 4
        assert picture.height == 2 * 128 + 4


def test_killed_at_a_random_step_and_resumed_equals_the_uninterrupted_run(tmp_path: Path, uninterrupted: Path):
    script = Path(__file__).with_name("tiny_task.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    kill_at = random.randrange(1, 30)
    command = [sys.executable, script, tmp_path, str(kill_at)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, (kill_at, done.stderr)
    assert checkpoint.latest(tmp_path / "checkpoints") is not None or kill_at < CONFIG.checkpoint_every
    task = TinyTask()
    train(task, tiny_feed(), CONFIG, tmp_path)
    assert len(task.seen) == (30 - kill_at + kill_at % CONFIG.checkpoint_every) * CONFIG.batch_size
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_the_run_resumes_exactly(tmp_path: Path, uninterrupted: Path, number: int):
    handler = signal.getsignal(number)
    state = train(SignallingTask(number, at=9), tiny_feed(), CONFIG, tmp_path)
    assert state.interrupted
    assert state.step == 10
    assert signal.getsignal(number) is handler
    assert (tmp_path / "checkpoints" / "step_00000010").is_dir()
    assert (tmp_path / "model" / "model.safetensors").is_file()
    task = TinyTask()
    assert not train(task, tiny_feed(), CONFIG, tmp_path).interrupted
    assert len(task.seen) == 20 * 4
    first, second = weights(tmp_path), weights(uninterrupted)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_log_of_a_resumed_run_has_no_entries_of_lost_steps(tmp_path: Path):
    with pytest.raises(TrainingError):
        train(TinyTask(broken_at=12), tiny_feed(), CONFIG, tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "loss"')  # cut short by the kill
    assert [entry["step"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == [4, 7, 8, 12]
    train(TinyTask(), tiny_feed(), CONFIG, tmp_path)
    steps = [entry["step"] for entry in read_metrics(tmp_path / "metrics.jsonl")]
    assert steps == [4, 7, 8, 12, 14, 16, 20, 21, 24, 28, 30]


def test_a_finished_run_is_not_trained_further_and_evaluated_once(tmp_path: Path):
    calls = []

    def evaluate(task, state):
        calls.append(state.step)
        return {"score": 0.25}

    config = LoopConfig(steps=6, batch_size=4, evaluate_every=2)
    for _ in range(2):
        task = TinyTask()
        assert train(task, tiny_feed(), config, tmp_path, evaluate=evaluate).step == 6
    assert calls == [2, 4, 6]
    assert task.seen == []
    scores = [entry.get("evaluation/score") for entry in read_metrics(tmp_path / "metrics.jsonl")]
    assert scores.count(0.25) == 3
    assert train(TinyTask(), tiny_feed(), LoopConfig(steps=8, batch_size=4), tmp_path).step == 8  # may be prolonged


def test_accumulation_equals_the_big_batch(tmp_path: Path):
    models = []
    for parts in (1, 4):
        task = TinyTask(dropout=0.0)
        train(task, tiny_feed(), LoopConfig(steps=5, batch_size=8, accumulation=parts), tmp_path / str(parts))
        models.append(task.model)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_not_a_number_stops_the_run_keeps_the_checkpoint_and_saves_the_images(tmp_path: Path):
    feed = tiny_feed()
    with pytest.raises(TrainingError, match=r"^loss is not finite in step 10 .*nan_batch.*step 7") as caught:
        train(TinyTask(broken_at=9), feed, CONFIG, tmp_path)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000007"]
    saved = load_file(tmp_path / "nan_batch.safetensors")
    expected = next(feed.batches(9 * 4, 4))
    assert torch.equal(saved["images"], expected.images_BCHW)
    assert torch.equal(saved["indices"], expected.indices_B)


def test_a_full_disk_leaves_the_previous_checkpoint_readable(tmp_path: Path, monkeypatch):
    train(TinyTask(), tiny_feed(), LoopConfig(steps=5, batch_size=4), tmp_path)
    before = load_file(tmp_path / "checkpoints" / "step_00000005" / "tensors.safetensors")

    def full(tensors, path):
        path.write_bytes(b"partly")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(WriteError, match="the disk is full"):
        train(TinyTask(), tiny_feed(), LoopConfig(steps=9, batch_size=4), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000005"]
    monkeypatch.undo()
    after = last_checkpoint(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_full_disk_while_logging_is_one_sentence(tmp_path: Path, monkeypatch):
    def full(path, *images, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("semhitok.training.run_logger.save_comparison", full)
    with pytest.raises(TrainingError, match=r"^the disk of .* is full; the last checkpoint is untouched$"):
        train(TinyTask(), tiny_feed(), LoopConfig(steps=9, batch_size=4, preview_every=2), tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        ),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_to_lower(tmp_path: Path, monkeypatch, error: BaseException):
    def fail(self, microbatches, state):
        raise error

    monkeypatch.setattr(TinyTask, "step", fail)
    with pytest.raises(TrainingError, match=r"step 1 with 2 images.*accumulation \(now 2\).*batch_size \(now 4\)"):
        train(TinyTask(), tiny_feed(), CONFIG, tmp_path)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path: Path, uninterrupted: Path, capsys):
    train(SignallingTask(signal.SIGTERM, at=14), tiny_feed(), CONFIG, tmp_path)
    damaged = tmp_path / "checkpoints" / "step_00000015"
    tensors = load_file(damaged / "tensors.safetensors")
    save_file({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, damaged / "tensors.safetensors")
    (tmp_path / "checkpoints" / "step_99999999").mkdir()
    task = TinyTask()
    train(task, tiny_feed(), CONFIG, tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if "the run goes on from step_00000014" in line]
    assert len(lines) == 2
    assert "step_00000015 is damaged: " in lines[1]
    assert len(task.seen) == (30 - 14) * 4
    assert_same_run(tmp_path, uninterrupted)


def test_other_runtime_errors_come_through_as_they_are(tmp_path: Path, monkeypatch):
    def fail(self, microbatches, state):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(TinyTask, "step", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(TinyTask(), tiny_feed(), CONFIG, tmp_path)


def test_a_run_is_not_resumed_on_other_data_or_another_seed(tmp_path: Path):
    train(TinyTask(), tiny_feed(), LoopConfig(steps=2, batch_size=4), tmp_path)
    with pytest.raises(ValueError, match="other data"):
        train(TinyTask(), tiny_feed(count=12), LoopConfig(steps=4, batch_size=4), tmp_path)
    with pytest.raises(ValueError, match="seed 0, not 1"):
        train(TinyTask(), tiny_feed(), LoopConfig(steps=4, batch_size=4, seed=1), tmp_path)


def test_two_runs_in_one_folder_are_refused(tmp_path: Path):
    with locked_directory(tmp_path / "run"):
        with pytest.raises(
            LockedError, match=r"^another run is at work in .*/run \(process \d+ on .*\): wait until .*$"
        ):
            train(TinyTask(), tiny_feed(), LoopConfig(steps=2, batch_size=4), tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"], "nothing was touched"
        assert train(TinyTask(), tiny_feed(), LoopConfig(steps=2, batch_size=4), tmp_path / "run", lock=False).step == 2
    assert train(TinyTask(), tiny_feed(), LoopConfig(steps=4, batch_size=4), tmp_path / "run").step == 4


def test_configurations_that_cannot_work_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="batch_size 4 is not divisible by accumulation x ranks = 3 x 1"):
        train(TinyTask(), tiny_feed(), LoopConfig(steps=2, batch_size=4, accumulation=3), tmp_path)
    for field in ("steps", "batch_size", "accumulation", "log_every", "preview_every", "checkpoint_every"):
        with pytest.raises(ValueError, match=f"^{field} must be at least 1, got 0$"):
            LoopConfig(**{"steps": 2, "batch_size": 4, field: 0})
    with pytest.raises(ValueError, match="max_seconds"):
        LoopConfig(steps=2, batch_size=4, max_seconds=0)


class Clock:
    """Stands for ``time`` in the loop: goes on only when told."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class TimedTask(TinyTask):
    """Takes a tenth of a second per step, longer from ``slower_from`` on."""

    def __init__(self, clock: Clock, *, slower_from: int = 10**9, slow: float = 0.2):
        super().__init__()
        self.clock, self.slower_from, self.slow = clock, slower_from, slow
        self.total_steps: list[int] = []

    def step(self, microbatches, state):
        self.clock.now += 0.1 if state.step < self.slower_from else self.slow
        self.total_steps.append(state.total_steps)
        return super().step(microbatches, state)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("semhitok.training.loop.time", clock)
    return clock


def test_max_seconds_sets_the_number_of_steps_by_the_measured_speed(tmp_path: Path, clock: Clock):
    task = TimedTask(clock)
    state = train(task, tiny_feed(), LoopConfig(steps=1000, batch_size=4, max_seconds=20.0), tmp_path)
    assert state.finished
    assert not state.interrupted
    assert state.step in range(187, 191)  # 95 % of 20 s at 0.1 s
    assert task.total_steps[:10] == [1000] * 10  # an upper bound while the speed is being measured
    assert max(task.total_steps[11:]) <= 190
    assert state.seconds == pytest.approx(0.1 * state.step)


def test_max_seconds_never_adds_steps(tmp_path: Path, clock: Clock):
    assert (
        train(TimedTask(clock), tiny_feed(), LoopConfig(steps=40, batch_size=4, max_seconds=90.0), tmp_path).step == 40
    )


def test_steps_that_become_slower_shorten_the_run(tmp_path: Path, clock: Clock):
    task = TimedTask(clock, slower_from=60)
    state = train(task, tiny_feed(), LoopConfig(steps=1000, batch_size=4, max_seconds=20.0), tmp_path)
    assert state.finished
    assert 17.0 < state.seconds <= 20.0


def test_a_time_limit_passed_all_the_same_stops_the_run_and_its_plan_survives_the_resume(tmp_path: Path, clock: Clock):
    config = LoopConfig(steps=1000, batch_size=4, max_seconds=20.0)
    state = train(TimedTask(clock, slower_from=160, slow=5.0), tiny_feed(), config, tmp_path)
    assert state.interrupted
    planned = state.total_steps
    task = TimedTask(clock)
    resumed = train(task, tiny_feed(), config, tmp_path)
    assert resumed.finished
    assert set(task.total_steps) == {planned}
    assert len(task.total_steps) == planned - state.step


def test_the_first_picture_comes_by_the_clock(tmp_path: Path, clock: Clock):
    config = LoopConfig(steps=40, batch_size=4, first_preview_seconds=1.25)
    train(TimedTask(clock), tiny_feed(), config, tmp_path)
    assert sorted(path.name for path in (tmp_path / "previews").iterdir()) == ["step_00000013.png", "step_00000040.png"]


def test_plain_lines_show_loss_quality_usage_speed_and_time_left(tmp_path: Path, clock: Clock, capsys):
    train(TimedTask(clock), tiny_feed(), LoopConfig(steps=40, batch_size=4), tmp_path)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("step 20/40"))
    assert "loss" in line
    assert line.endswith("PSNR 10.00 dB  usage 50.0 %  40.0 images/s  0:02 left")


def test_images_that_cannot_be_read_are_counted_and_reported(tmp_path: Path, capsys):
    (tmp_path / "images").mkdir()
    for index in range(8):
        Image.new("RGB", (8, 8), (30 * index, 0, 0)).save(tmp_path / "images" / f"{index}.png")
    (tmp_path / "images" / "3.png").write_bytes(b"not an image")
    feed = StreamFeed(ImageFolder(tmp_path / "images"), 8, 8, seed=0, workers=0, max_bad_share=0.9)
    train(TinyTask(), feed, LoopConfig(steps=4, batch_size=4), tmp_path / "run")
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["bad_images"] == 1
    assert "1 images could not be read and were replaced, among them 3.png" in capsys.readouterr().out


def test_a_resumed_run_counts_the_unreadable_images_of_the_whole_run(tmp_path: Path, capsys):
    (tmp_path / "images").mkdir()
    for index in range(16):
        Image.new("RGB", (8, 8), (15 * index, 0, 0)).save(tmp_path / "images" / f"{index:02}.png")
    order = [int(index) for index in SampleOrder(16, 0).indices(0, 16)]
    for position in (1, 6, 13):  # of the first, the second and the last batch
        (tmp_path / "images" / f"{order[position]:02}.png").write_bytes(b"not an image")
    counts = {}
    for name, stops in (("whole", (4,)), ("resumed", (1, 2, 4))):
        for steps in stops:
            feed = StreamFeed(ImageFolder(tmp_path / "images"), 8, 8, seed=0, workers=0, max_bad_share=0.9)
            config = LoopConfig(steps=steps, batch_size=4, log_every=1, preview_every=100)
            train(TinyTask(), feed, config, tmp_path / name)
        last = {entry["step"]: entry["bad_images"] for entry in read_metrics(tmp_path / name / "metrics.jsonl")}
        counts[name] = (last[4], capsys.readouterr().out.rpartition(" images could not be read")[0].split()[-1])
    assert counts["resumed"] == counts["whole"] == (3, "3")


def test_entries_are_json(uninterrupted: Path):
    for line in (uninterrupted / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
