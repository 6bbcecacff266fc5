from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from semhitok.data.transforms import (
    fit_image,
    flip_images,
    random_flips,
    tile_image,
    to_float,
    to_pil,
    to_uint8,
    untile,
)


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_an_image_that_fits_is_unchanged() -> None:
    for mode in ("crop", "resize"):
        np.testing.assert_array_equal(np.asarray(fit_image(noise(12, 20), 12, 20, mode)), np.asarray(noise(12, 20)))


def test_crop_keeps_the_middle() -> None:
    image = noise(16, 40)
    np.testing.assert_array_equal(np.asarray(fit_image(image, 16, 16)), np.asarray(image)[:, 12:28])
    np.testing.assert_array_equal(np.asarray(fit_image(noise(40, 16), 16, 16)), np.asarray(noise(40, 16))[12:28])


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (64, 64), (31, 200)])
def test_crop_is_resize_of_the_shorter_side_then_centre_crop(height: int, width: int) -> None:
    """Against the plain two-step recipe on a smooth picture, where the sub-pixel phase of the window hardly matters."""
    rows, columns = np.mgrid[0:height, 0:width] / 30.0
    pixels = 127 + 100 * np.stack([np.sin(rows), np.cos(columns), np.sin(rows + columns)], axis=-1)
    image = Image.fromarray(pixels.astype(np.uint8))
    scale = 16 / min(height, width)
    resized = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    left, top = (resized.width - 16) // 2, (resized.height - 16) // 2
    expected = np.asarray(resized.crop((left, top, left + 16, top + 16)), dtype=float)
    difference = np.abs(np.asarray(fit_image(image, 16, 16), dtype=float) - expected)
    assert difference.mean() < 4


def test_downscaling_is_antialiased() -> None:
    checkerboard = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    pixels = np.asarray(fit_image(Image.fromarray(checkerboard).convert("RGB"), 16, 16)).astype(int)
    assert np.abs(pixels - 127.5).max() < 2


def test_resize_uses_the_whole_image() -> None:
    pixels = np.zeros((32, 96, 3), dtype=np.uint8)
    pixels[:, :48] = 255
    fitted = np.asarray(fit_image(Image.fromarray(pixels), 16, 16, "resize"))
    assert (fitted[:, :6] > 250).all()
    assert (fitted[:, 10:] < 5).all()


@given(st.integers(8, 400), st.integers(8, 400), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_every_size_can_be_fitted(height: int, width: int, target_height: int, target_width: int) -> None:
    image = Image.new("RGB", (width, height), (10, 200, 30))
    fitted = fit_image(image, target_height, target_width)
    assert fitted.size == (target_width, target_height)
    assert (np.asarray(fitted) == [10, 200, 30]).all()


def test_fit_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="'crop' or 'resize', not 'pad'"):
        fit_image(noise(8, 8), 8, 8, "pad")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="not 0 x 8"):
        fit_image(noise(8, 8), 0, 8)


@given(st.integers(8, 70), st.integers(8, 70), st.integers(4, 80), st.integers(4, 80))
@settings(max_examples=40, deadline=None)
def test_untile_inverts_tile(height: int, width: int, tile_height: int, tile_width: int) -> None:
    image = noise(height, width)
    tiles, layout = tile_image(image, tile_height, tile_width)
    assert (layout.rows, layout.columns) == (-(-height // tile_height), -(-width // tile_width))
    assert all(tile.size == (tile_width, tile_height) for tile in tiles)
    np.testing.assert_array_equal(np.asarray(untile(tiles, layout)), np.asarray(image))


def test_tiles_are_in_reading_order_and_mirrored_at_the_edge() -> None:
    image = noise(16, 20)
    tiles, layout = tile_image(image, 8, 8)
    pixels = np.asarray(image)
    np.testing.assert_array_equal(np.asarray(tiles[1]), pixels[:8, 8:16])
    np.testing.assert_array_equal(np.asarray(tiles[5])[:, 4:], pixels[8:, 19:15:-1])
    with pytest.raises(ValueError, match="2 x 3 tiles are needed, not 5"):
        untile(tiles[:5], layout)


def test_pixel_conversions() -> None:
    image = Image.fromarray(np.arange(256 * 3, dtype=np.int64).reshape(16, 16, 3).astype(np.uint8))
    stored = to_uint8(image)
    assert stored.shape == (3, 16, 16)
    assert stored.dtype == torch.uint8
    assert stored[1, 0, 2] == 7  # row 0, column 2, green
    pixels = to_float(stored)
    assert pixels.dtype == torch.float32
    assert pixels.min() == -1
    assert pixels.max() == 1
    np.testing.assert_array_equal(np.asarray(to_pil(pixels)), np.asarray(image))
    assert np.asarray(to_pil(pixels * 3)).max() == 255


def test_flips_are_fair_and_keyed_by_position() -> None:
    flips = random_flips(3, np.arange(20_000))
    assert abs(flips.mean() - 0.5) < 0.02
    np.testing.assert_array_equal(random_flips(3, np.arange(100, 200)), flips[100:200])
    assert (random_flips(4, np.arange(20_000)) != flips).mean() > 0.45


def test_flip_images_mirrors_only_the_chosen() -> None:
    images = torch.arange(2 * 3 * 2 * 4, dtype=torch.uint8).reshape(2, 3, 2, 4)
    flipped = flip_images(images, torch.tensor([False, True]))
    assert torch.equal(flipped[0], images[0])
    assert torch.equal(flipped[1], images[1][..., [3, 2, 1, 0]])
