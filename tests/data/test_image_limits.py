"""What is damaged, hostile or no image is an error in one sentence, in bounded time and memory, whatever other threads do."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import struct
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from benchmarks.hostile_data import large_picture
from benchmarks.measuring import memory_is_measurable, peak_memory
from PIL import Image, ImageFile
from tests.data.pictures_on_disk import ramp, save

from semhitok.data import images
from semhitok.data.images import MAX_PIXELS, ImageError, load_image
from semhitok.storage import byte_ranges


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_beside_a_decoding_thread_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a loader inside a server or a notebook: the child has the lock, but not the thread that would open it."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # another library's wish
    buffer = io.BytesIO()
    Image.fromarray(ramp(3)).save(buffer, "PNG")
    inside, done = threading.Event(), threading.Event()

    def decode() -> None:
        with images._decoding, images._decoding._lock:
            inside.set()
            done.wait(60)

    thread = threading.Thread(target=decode)
    thread.start()
    inside.wait(60)
    child = os.fork()
    if child == 0:
        try:
            as_before = ImageFile.LOAD_TRUNCATED_IMAGES and load_image(buffer.getvalue()).mode == "RGB"
            os._exit(0 if as_before and ImageFile.LOAD_TRUNCATED_IMAGES else 1)
        finally:
            os._exit(2)
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    done.set()
    thread.join()
    assert ended == (child, 0), "the child waits for a lock that nobody will open"


@pytest.mark.parametrize("filled", [False, True])  # whether another library has told Pillow to fill up such files
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_files_are_errors_that_name_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, share: float, filled: bool
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", filled)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    data = buffer.getvalue()
    path = tmp_path / "half.img"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"half\.img: .*\.$") as raised:
        load_image(path)
    assert "\n" not in str(raised.value)
    assert filled is ImageFile.LOAD_TRUNCATED_IMAGES


def test_threads_do_not_fill_up_each_others_files(monkeypatch: pytest.MonkeyPatch) -> None:
    filters = list(warnings.filters)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    data = buffer.getvalue()

    def refused(share: float) -> bool:
        try:
            load_image(data[: int(len(data) * share)])
        except ImageError:
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(refused, np.linspace(0.05, 0.95, 400)))
    assert all(found)
    assert ImageFile.LOAD_TRUNCATED_IMAGES
    assert warnings.filters == filters


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_corrupt_files_never_raise_anything_else(tmp_path: Path, kind: str) -> None:
    random = np.random.default_rng(1)
    buffer = io.BytesIO()
    Image.fromarray(ramp(3)).save(buffer, kind)
    for _ in range(100):
        data = np.frombuffer(buffer.getvalue(), dtype=np.uint8).copy()
        data[random.integers(0, len(data), 8)] = random.integers(0, 256, 8)
        with contextlib.suppress(ImageError):
            assert load_image(data.tobytes()).mode == "RGB"


def test_files_that_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello, I am not an image at all")
    for name, reason in (("empty.png", "is empty"), ("text.png", "not an image"), ("none.png", "No such file")):
        with pytest.raises(ImageError, match=f"{name}: .*{reason}"):
            load_image(tmp_path / name)
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(tmp_path)


def test_only_regular_files_of_bounded_size_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(byte_ranges.MAX_BYTES + 1)
    for place in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(ImageError, match=f"{place}: cannot be read: it is not a regular file"):
            load_image(place)
    with pytest.raises(ImageError, match=r"huge\.png: cannot be read: it has 536,870,913 bytes, up to 536,870,912 are"):
        load_image(tmp_path / "huge.png")
    for name in ("a\0b.png", "\ud800.png"):
        with pytest.raises(ImageError, match=r"\.png: cannot be read"):
            load_image(tmp_path / name)


def test_tiny_images_are_refused(tmp_path: Path) -> None:
    for size in ((1, 1), (100, 7)):
        with pytest.raises(ImageError, match=rf"a\.png: {size[0]} x {size[1]} pixels are too few"):
            load_image(save(tmp_path / "a.png", Image.new("RGB", size), "PNG"))
    assert load_image(Image.new("RGB", (8, 8))).size == (8, 8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels to speak of."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [9_000, 11_000, 60_000])
def test_decompression_bombs_are_refused_before_decoding(side: int) -> None:
    assert side * side > MAX_PIXELS
    with pytest.raises(ImageError, match=r"bomb\.png: .*80,000,000"):
        load_image(png_header(side, side), name="bomb.png")


def _png_with_text(keyword: bytes, text: bytes) -> bytes:
    """A PNG whose compressed text stands before its pixels."""
    file = io.BytesIO()
    Image.radial_gradient("L").resize((40, 30)).convert("RGB").save(file, "PNG")
    data = file.getvalue()
    content = b"zTXt" + keyword + b"\0\0" + zlib.compress(text)
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return data[:33] + chunk + data[33:]


def test_a_png_with_a_long_compressed_text_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """As programs that draw with diffusion models write it; Pillow refuses more than a megabyte."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)  # lmms-eval sets it for the whole process
    data = _png_with_text(b"workflow", b"{}" * 1_000_000)
    with pytest.raises(ValueError, match="Decompressed data too large"):
        Image.open(io.BytesIO(data)).load()
    wanted = Image.radial_gradient("L").resize((40, 30)).convert("RGB")
    assert np.array_equal(np.asarray(load_image(data)), np.asarray(wanted))
    short = _png_with_text(b"comment", b"short")
    assert np.array_equal(np.asarray(load_image(short)), np.asarray(Image.open(io.BytesIO(short))))


def test_a_jpeg_of_many_scans_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A progressive file of 4 x 300 scans, whose last scan is repeated: each costs a pass over the whole image."""
    file = io.BytesIO()
    Image.radial_gradient("L").resize((3000, 3000)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    assert load_image(data).size == (3000, 3000)
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match="scans of 3000 x 3000 pixels are more than the 3,000,000,000 pixels"):
        load_image(data[:-2] + scan * 400 + data[-2:], name="scans.jpg")


@pytest.mark.skipif(not memory_is_measurable(), reason="the kernel does not let a process reset its peak memory")
@pytest.mark.parametrize("mode", ["P", "I;16"])
def test_large_pictures_of_few_bytes_take_bounded_memory(mode: str) -> None:
    """79 million transparent or 16-bit pixels, which took 984 and 1,438 MiB when they were converted as a whole."""
    assert peak_memory(large_picture, mode) < 768 * 2**20
