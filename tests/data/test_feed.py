from __future__ import annotations

import itertools
import multiprocessing
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from semhitok.data.feed import Batch, Feed, MemoryFeed, StreamFeed, load_into_memory
from semhitok.data.images import ImageError
from semhitok.data.randomness import SampleOrder
from semhitok.data.sources import Sample
from semhitok.data.transforms import random_flips

COUNT, HEIGHT, WIDTH = 23, 16, 24


@dataclass(frozen=True)
class Pictures:
    """A source whose pictures are random pixels, each a function of its index; the ``bad`` ones cannot be read."""

    count: int = COUNT
    bad: frozenset[int] = frozenset()
    fingerprint: str = "pictures"

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        return f"picture-{index}"

    def load(self, index: int) -> Sample:
        if index in self.bad:
            raise ImageError(f"picture-{index}: truncated.")
        return Sample(image=Image.fromarray(pixels_of(index).transpose(1, 2, 0)), key=self.key(index))


def pixels_of(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)


def memory_feed(flip: bool = True, seed: int = 5) -> MemoryFeed:
    images = torch.from_numpy(np.stack([pixels_of(index) for index in range(COUNT)]))
    return MemoryFeed(images, seed=seed, flip=flip, extras=extras())


def extras() -> dict[str, np.ndarray]:
    """For each image and variant a vector (index, variant)."""
    return {"pair": np.stack(np.meshgrid(np.arange(COUNT), np.arange(2), indexing="ij"), axis=-1)}


def stream_feed(workers: int = 0, flip: bool = True) -> StreamFeed:
    return StreamFeed(Pictures(), HEIGHT, WIDTH, seed=5, flip=flip, extras=extras(), workers=workers)


def take(feed: Feed, start: int, batch_size: int, count: int, rank: int = 0, world: int = 1) -> list[Batch]:
    return list(itertools.islice(feed.batches(start, batch_size, rank, world), count))


def join(batches: list[Batch]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images = np.concatenate([batch.images_BCHW.numpy() for batch in batches])
    indices = np.concatenate([batch.indices_B.numpy() for batch in batches])
    return images, indices, np.concatenate([batch.flipped_B.numpy() for batch in batches])


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    for one, other in zip(join(first), join(second), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("feed", [memory_feed(), stream_feed()], ids=["memory", "stream"])
def test_batches_follow_order_and_flips(feed: Feed) -> None:
    images, indices, flipped = join(take(feed, 40, 8, 5))
    positions = np.arange(40, 80)
    np.testing.assert_array_equal(indices, SampleOrder(COUNT, 5).indices(40, 40))
    np.testing.assert_array_equal(flipped, random_flips(5, positions))
    assert 0 < flipped.sum() < len(flipped)
    for image, index, flip in zip(images, indices, flipped, strict=True):
        expected = pixels_of(int(index))
        np.testing.assert_array_equal(image, expected[..., ::-1] if flip else expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_equals_memory(workers: int) -> None:
    assert_same(take(stream_feed(workers), 17, 6, 9), take(memory_feed(), 17, 6, 9))


@given(st.integers(0, 100), st.sampled_from([1, 2, 3, 4, 6]), st.integers(0, 4))
@settings(max_examples=30, deadline=None)
def test_resuming_and_ranks_change_nothing(start: int, world: int, skip: int) -> None:
    feed = memory_feed()
    whole = take(feed, start, 12, 5)
    assert_same(whole[skip:], take(feed, start + 12 * skip, 12, 5 - skip))
    ranks = [take(memory_feed(), start, 12, 5, rank, world) for rank in range(world)]
    for step, batch in enumerate(whole):
        assert_same([batch], [ranks[rank][step] for rank in range(world)])


def test_extras_follow_index_and_flip() -> None:
    for feed in (memory_feed(), stream_feed()):
        for batch in take(feed, 3, 10, 3):
            expected = torch.stack([batch.indices_B, batch.flipped_B.long()], dim=1)
            assert torch.equal(batch.extras["pair"], expected)


def test_extras_may_be_memory_mapped_and_broadcast(tmp_path: Path) -> None:
    path = tmp_path / "features.npy"
    np.save(path, np.arange(COUNT, dtype=np.float16)[:, None])
    array = np.broadcast_to(np.load(path, mmap_mode="r")[:, None], (COUNT, 2, 1))
    feed = MemoryFeed(torch.zeros(COUNT, 3, 8, 8, dtype=torch.uint8), seed=0, flip=True, extras={"x": array})
    batch = next(feed.batches(0, 6))
    assert batch.extras["x"].dtype == torch.float16
    assert torch.equal(batch.extras["x"][:, 0].long(), batch.indices_B)


def test_pixel_values_and_split() -> None:
    batch = next(memory_feed().batches(0, 6))
    pixels = batch.pixel_values()
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels, batch.images_BCHW / 127.5 - 1)
    parts = batch.split(3)
    assert [len(part) for part in parts] == [2, 2, 2]
    assert_same(parts, [batch])
    assert torch.equal(parts[2].extras["pair"], batch.extras["pair"][4:])
    with pytest.raises(ValueError, match="6 images cannot be split into 4"):
        batch.split(4)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_replaced_the_same_way_everywhere(workers: int) -> None:
    bad = frozenset({2, 11})
    good = take(stream_feed(), 0, 6, 20)

    def feed(workers: int = workers) -> StreamFeed:
        source = Pictures(bad=bad)
        return StreamFeed(source, HEIGHT, WIDTH, seed=5, flip=True, workers=workers, max_bad_share=0.5)

    with_bad = feed()
    batches = take(with_bad, 0, 6, 20)
    images, indices, _ = join(batches)
    _, wanted, _ = join(good)
    assert not np.isin(indices, list(bad)).any()
    np.testing.assert_array_equal(indices[~np.isin(wanted, list(bad))], wanted[~np.isin(wanted, list(bad))])
    assert with_bad.bad == {"picture-2": "picture-2: truncated.", "picture-11": "picture-11: truncated."}
    assert_same(take(feed(0), 60, 3, 20), batches[10:])
    assert len(images) == 120


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_images_are_an_error(workers: int) -> None:
    source = Pictures(count=200, bad=frozenset(range(0, 200, 10)))
    feed = StreamFeed(source, HEIGHT, WIDTH, seed=0, workers=workers)
    with pytest.raises(
        ValueError, match=r"too many images cannot be read \(\d+ of \d+, 5% .*picture-\d+: trunc"
    ) as raised:
        take(feed, 0, 20, 10)
    assert "\n" not in str(raised.value)
    feed = StreamFeed(source, HEIGHT, WIDTH, seed=0, workers=workers, max_bad_share=0.2)
    assert len(take(feed, 0, 20, 10)) == 10
    everything = Pictures(count=50, bad=frozenset(range(50)))
    with pytest.raises(ValueError, match="too many images"):
        take(StreamFeed(everything, HEIGHT, WIDTH, seed=0, workers=workers, max_bad_share=1.0), 0, 4, 30)


def test_one_bad_image_in_the_first_batch_is_no_error() -> None:
    source = Pictures(count=200, bad=frozenset({int(SampleOrder(200, 0).indices(0, 1)[0])}))
    feed = StreamFeed(source, HEIGHT, WIDTH, seed=0, workers=0)
    assert len(take(feed, 0, 4, 3)) == 3
    assert len(feed.bad) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the sender of a signal can be told on Linux only")
def test_workers_outlive_a_signal_to_the_whole_group() -> None:
    batches = stream_feed(workers=2).batches(0, 4)
    first = list(itertools.islice(batches, 4))  # by now both workers are up
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for name in ("INT", "TERM"):  # from another process than the training's own
        subprocess.run(["kill", f"-{name}", *(str(worker.pid) for worker in workers)], check=True)
    rest = list(itertools.islice(batches, 20))
    assert_same([*first, *rest], take(memory_feed(), 0, 4, 24))
    batches.close()  # pyright: ignore[reportAttributeAccessIssue]
    del batches
    assert not [worker for worker in workers if worker.is_alive()]


@pytest.mark.parametrize("workers", [0, 2])
def test_load_into_memory(workers: int) -> None:
    seen: list[tuple[int, int]] = []
    source = Pictures(count=150, bad=frozenset({0, 70, 149}))
    loaded = load_into_memory(source, HEIGHT, WIDTH, workers=workers, progress=lambda *done: seen.append(done))
    kept = [index for index in range(150) if index not in source.bad]
    np.testing.assert_array_equal(loaded.images.numpy(), np.stack([pixels_of(index) for index in kept]))
    assert loaded.bad == [(f"picture-{i}", f"picture-{i}: truncated.") for i in (0, 70, 149)]
    assert seen[-1] == (150, 150)
    assert seen == sorted(seen)


def test_load_fits_to_size() -> None:
    assert load_into_memory(Pictures(), 8, 8, workers=0).images.shape == (COUNT, 3, 8, 8)
    crop, resize = (load_into_memory(Pictures(), 8, 8, mode, workers=0) for mode in ("crop", "resize"))
    assert not torch.equal(crop.images, resize.images)
    assert crop.fingerprint != resize.fingerprint


def test_load_refuses_too_many_bad_or_nothing() -> None:
    with pytest.raises(ValueError, match=r"\(4 of 23, 10% are accepted\); the first: picture-0"):
        load_into_memory(Pictures(bad=frozenset({0, 4, 5, 6})), 8, 8, workers=0, max_bad_share=0.1)
    with pytest.raises(ValueError, match="too many images"):
        load_into_memory(Pictures(bad=frozenset(range(COUNT))), 8, 8, workers=0)
    with pytest.raises(ValueError, match="no images"):
        load_into_memory(Pictures(count=0), 8, 8, workers=0)


def test_fingerprints() -> None:
    loaded = load_into_memory(Pictures(), HEIGHT, WIDTH, workers=0)
    feed = MemoryFeed(loaded.images, seed=5, fingerprint=loaded.fingerprint)
    assert feed.fingerprint == stream_feed().fingerprint  # a run may go on from disk
    without = load_into_memory(Pictures(bad=frozenset({1})), HEIGHT, WIDTH, workers=0)
    assert without.fingerprint != loaded.fingerprint
    changed = loaded.images.clone()
    changed[3, 1, 2, 2] ^= 1
    digests = {MemoryFeed(images, seed=5).fingerprint for images in (loaded.images, loaded.images.clone(), changed)}
    assert len(digests) == 2


def test_wrong_arguments() -> None:
    images = torch.zeros(COUNT, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"uint8, not .*float32"):
        MemoryFeed(images.float(), seed=0)
    with pytest.raises(ValueError, match=r"'x' has shape \(23, 1\), \(23, 2, \.\.\.\) is needed"):
        MemoryFeed(images, seed=0, flip=True, extras={"x": np.zeros((COUNT, 1))})
    for arguments in ((0, 6, 0, 4), (0, 6, 2, 2), (-1, 6, 0, 1), (0, 0, 0, 1)):
        with pytest.raises(ValueError, match="cannot be divided"):
            next(memory_feed().batches(*arguments))
    assert len(memory_feed()) == len(stream_feed()) == COUNT


def test_a_process_that_leaves_a_stream_open_still_ends(tmp_path: Path) -> None:
    Image.fromarray(pixels_of(0).transpose(1, 2, 0)).save(tmp_path / "0.png")
    program = (
        "from semhitok.data.feed import StreamFeed\n"
        "from semhitok.data.sources import ImageFolder\n"
        f"batches = StreamFeed(ImageFolder({str(tmp_path)!r}), 8, 8, seed=0, workers=1).batches(0, 2)\n"
        "print(len(next(batches)), len(next(batches)), flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().split() == ["2", "2"]  # imports take minutes on a busy machine
            assert process.wait(timeout=120) == 0
        finally:
            process.kill()


def test_feeds_leave_the_global_generators_alone() -> None:
    torch_state, numpy_state = torch.get_rng_state(), str(np.random.get_state())
    for feed in (memory_feed(), stream_feed(0), stream_feed(1)):
        take(feed, 0, 4, 2)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert str(np.random.get_state()) == numpy_state


@dataclass(frozen=True)
class Captioned:
    """``Pictures`` of which every third has no caption."""

    pictures: Pictures = Pictures(bad=frozenset({2, 7}))
    fingerprint: str = "captioned"

    def __len__(self) -> int:
        return len(self.pictures)

    def key(self, index: int) -> str:
        return self.pictures.key(index)

    def load(self, index: int) -> Sample:
        sample = self.pictures.load(index)
        caption = {} if index % 3 == 0 else {"caption": f" picture {index} \n"}
        return Sample(sample.image, sample.key, caption)


def captions_of(indices: list[int]) -> list[str | None]:
    return [None if index % 3 == 0 else f"picture {index}" for index in indices]


@pytest.mark.parametrize("workers", [0, 1])
def test_captions_are_read_with_their_images(workers: int):
    loaded = load_into_memory(Captioned(), HEIGHT, WIDTH, workers=workers, max_bad_share=0.1)
    assert loaded.captions == captions_of([index for index in range(COUNT) if index not in (2, 7)])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_hands_captions_to_their_reader_in_the_order_of_the_batch(workers: int):
    def lengths(captions):
        return {"length": torch.tensor([len(caption or "") for caption in captions])}

    feed = StreamFeed(Captioned(), HEIGHT, WIDTH, seed=5, workers=workers, from_captions=lengths, max_bad_share=0.5)
    for batch in itertools.islice(feed.batches(0, 6), 6):
        expected = [len(caption or "") for caption in captions_of(batch.indices_B.tolist())]
        assert batch.extras["length"].tolist() == expected
        parts = batch.split(2)
        assert torch.cat([part.extras["length"] for part in parts]).tolist() == expected
