"""Files of any kind become RGB images as they are meant to be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.pictures_on_disk import SIDE, ramp, save

from semhitok.data.images import ImageError, load_image, stored_size
from semhitok.data.transforms import fit_image


def stored_mode(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


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
