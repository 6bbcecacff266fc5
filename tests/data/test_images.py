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

from semhitok.data import images
from semhitok.data.images import MAX_PIXELS, ImageError, load_image, stored_size
from semhitok.data.transforms import fit_image
from semhitok.storage import byte_ranges

SIDE = 16


def save(path: Path, image: Image.Image, kind: str, **options: object) -> Path:
    image.save(path, kind, **options)
    return path


def stored_mode(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def ramp(channels: int) -> np.ndarray:
    """(16,16,channels) uint8 with a different value at every pixel of a channel."""
    values = np.arange(SIDE * SIDE * channels, dtype=np.int64).reshape(SIDE, SIDE, channels)
    return ((values * 37) % 256).astype(np.uint8)


def test_rgb_is_unchanged(tmp_path: Path) -> None:
    pixels = ramp(3)
    image = load_image(save(tmp_path / "a.png", Image.fromarray(pixels), "PNG"))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_grey_has_three_equal_channels(tmp_path: Path) -> None:
    pixels = ramp(1)[..., 0]
    image = load_image(save(tmp_path / "a.png", Image.fromarray(pixels), "PNG"))
    np.testing.assert_array_equal(np.asarray(image), np.repeat(pixels[..., None], 3, axis=2))


def test_one_bit(tmp_path: Path) -> None:
    pixels = (ramp(1)[..., 0] > 127).astype(np.uint8) * 255
    image = load_image(save(tmp_path / "a.png", Image.fromarray(pixels).convert("1"), "PNG"))
    np.testing.assert_array_equal(np.asarray(image)[..., 1], pixels)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_white(tmp_path: Path, mode: str) -> None:
    pixels = ramp(len(mode))
    image = load_image(save(tmp_path / "a.png", Image.fromarray(pixels), "PNG"))
    assert stored_mode(tmp_path / "a.png") == mode
    alpha = pixels[..., -1:].astype(float) / 255
    expected = alpha * pixels[..., :-1] + (1 - alpha) * 255
    expected = np.broadcast_to(expected, (SIDE, SIDE, 3))
    assert np.abs(np.asarray(image) - expected).max() <= 1.0  # 8-bit rounding


def test_palette_with_transparent_index(tmp_path: Path) -> None:
    indices = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 3).astype(np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata(indices.ravel().tolist())
    path = save(tmp_path / "a.png", image, "PNG", transparency=1)
    assert stored_mode(path) == "P"
    colours = np.array([[255, 0, 0], [255, 255, 255], [0, 0, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(load_image(path)), colours[indices])


def test_opaque_palette(tmp_path: Path) -> None:
    image = Image.fromarray(ramp(3)).quantize(16)
    path = save(tmp_path / "a.png", image, "PNG")
    np.testing.assert_array_equal(np.asarray(load_image(path)), np.asarray(image.convert("RGB")))


def test_rgb_with_colour_key(tmp_path: Path) -> None:
    pixels = np.full((SIDE, SIDE, 3), 10, dtype=np.uint8)
    pixels[0] = (1, 2, 3)
    path = save(tmp_path / "a.png", Image.fromarray(pixels), "PNG", transparency=(1, 2, 3))
    expected = pixels.copy()
    expected[0] = 255
    np.testing.assert_array_equal(np.asarray(load_image(path)), expected)


def test_cmyk_tiff_by_the_subtractive_formula(tmp_path: Path) -> None:
    pixels = ramp(4)
    image = load_image(save(tmp_path / "a.tif", Image.fromarray(pixels, mode="CMYK"), "TIFF"))
    ink = pixels.astype(float) / 255
    expected = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    assert np.abs(np.asarray(image) - expected).max() <= 1.0


def test_cmyk_jpeg_keeps_its_colour(tmp_path: Path) -> None:
    cyan = Image.new("CMYK", (SIDE, SIDE), (255, 0, 0, 0))
    image = load_image(save(tmp_path / "a.jpg", cyan, "JPEG", quality=100))
    assert np.abs(np.asarray(image).astype(int) - [0, 255, 255]).max() <= 3


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
    for name, kind in (("a.png", "PNG"), ("a.tif", "TIFF")):
        image = np.asarray(load_image(save(tmp_path / name, Image.fromarray(values), kind)))
        np.testing.assert_array_equal(image[..., 0], np.round(values / 65535 * 255).astype(np.uint8))
        np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_32_bit_grey_within_16_bits_is_taken_as_16_bits(tmp_path: Path) -> None:
    values = np.full((SIDE, SIDE), 65535, dtype=np.int32)
    assert np.asarray(load_image(save(tmp_path / "a.tif", Image.fromarray(values), "TIFF"))).min() == 255
    path = save(tmp_path / "b.tif", Image.fromarray(values * 2), "TIFF")
    with pytest.raises(ImageError, match=r"b\.tif: 32-bit grey"):
        load_image(path)


def test_floating_point_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(np.zeros((SIDE, SIDE), dtype=np.float32)), "TIFF")
    with pytest.raises(ImageError, match="floating-point"):
        load_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = ramp(3)[:10]  # 10 high, 16 wide
    # The stored picture that each orientation value of the EXIF standard turns into the upright one.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    np.testing.assert_array_equal(np.asarray(load_image(path)), upright)


def test_broken_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(ramp(3)), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    assert load_image(path).size == (SIDE, SIDE)


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


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations_give_their_first_frame(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / "a.bin"
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=100, **options)
    with Image.open(path) as stored:
        assert getattr(stored, "n_frames", 1) == 3
    assert np.unique(np.asarray(load_image(path)).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


def test_wrong_extension_with_good_content(tmp_path: Path) -> None:
    pixels = ramp(3)
    path = save(tmp_path / "picture.jpg", Image.fromarray(pixels), "PNG")
    np.testing.assert_array_equal(np.asarray(load_image(path)), pixels)


def test_bytes_and_opened_images_are_taken(tmp_path: Path) -> None:
    pixels = ramp(3)
    path = save(tmp_path / "a.png", Image.fromarray(pixels), "PNG")
    np.testing.assert_array_equal(np.asarray(load_image(path.read_bytes())), pixels)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(np.asarray(load_image(opened)), pixels)
    np.testing.assert_array_equal(np.asarray(load_image(Image.fromarray(pixels))), pixels)


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


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "I"])
def test_conversion_in_strips_is_that_of_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 256, (37, 23, 4)).astype(np.uint8)
    image = Image.fromarray(values, "RGBA")
    if mode.startswith("I"):
        grey = values[..., 0].astype(np.uint16) * 257 if mode == "I;16" else values[..., 0].astype(np.int32) * 200
        image = Image.fromarray(grey)
    elif mode == "P":
        image = image.convert("RGB").quantize(64)
        image.info["transparency"] = 5
    else:
        image = image.convert(mode)
    wanted = np.asarray(load_image(image))
    monkeypatch.setattr("semhitok.data.images._STRIP_PIXELS", 50)
    assert np.array_equal(np.asarray(load_image(image)), wanted)


@pytest.mark.skipif(not memory_is_measurable(), reason="the kernel does not let a process reset its peak memory")
@pytest.mark.parametrize("mode", ["P", "I;16"])
def test_large_pictures_of_few_bytes_take_bounded_memory(mode: str) -> None:
    """79 million transparent or 16-bit pixels, which took 984 and 1,438 MiB when they were converted as a whole."""
    assert peak_memory(large_picture, mode) < 768 * 2**20


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_that_is_passed_on_is_not_rotated_again(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a", Image.fromarray(np.repeat(ramp(3), 2, axis=1)), kind, exif=exif)
    once = load_image(path)
    assert once.size == ((16, 32) if orientation in (6, 8) else (32, 16))
    np.testing.assert_array_equal(np.asarray(load_image(once)), np.asarray(once))


def photograph(path: Path, width: int, height: int, kind: str = "JPEG", **options: object) -> Path:
    """Smooth, as photographs are, with an edge."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 80 * np.sin(x / width * a + y / height * b) + 40 * (x > y) for a, b in ((5, 3), (2, 9), (7, 1))]
    return save(path, Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8)), kind, quality=90, **options)


@pytest.mark.parametrize(
    ("size", "side", "decoded"),
    [
        ((640, 480), 64, (320, 240)),
        ((640, 480), 120, (320, 240)),
        ((640, 480), 121, (640, 480)),
        ((1024, 1030), 64, (128, 129)),
    ],
)
def test_a_draft_is_smaller_and_nearly_the_same(tmp_path: Path, size: tuple, side: int, decoded: tuple) -> None:
    path = photograph(tmp_path / "a.jpg", *size)
    full, draft = load_image(path), load_image(path, draft_side=side)
    assert (full.size, stored_size(full)) == (size, size)
    assert (draft.size, stored_size(draft)) == (decoded, size)
    ours, theirs = (np.asarray(fit_image(image, side, side)).astype(int) for image in (draft, full))
    assert np.abs(ours - theirs).mean() < 1


def test_a_draft_keeps_what_a_full_image_has(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = photograph(tmp_path / "a.jpg", 640, 480, exif=exif)
    draft = load_image(path, draft_side=64)
    assert (draft.size, stored_size(draft)) == ((240, 320), (480, 640))
    with pytest.raises(ImageError, match="640 x 480 pixels are more than the 1,000"):
        load_image(path, max_pixels=1000, draft_side=64)
    whole = photograph(tmp_path / "a.png", 640, 480, "PNG")
    assert load_image(whole, draft_side=64).tobytes() == load_image(whole).tobytes()
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ImageError, match="truncated"):
        load_image(path, draft_side=64)
