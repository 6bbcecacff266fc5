"""The image processor: every kind of image, the three ways to fit, and back to pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import tiny_model

from semhitok.data.images import ImageError
from semhitok.data.transforms import untile
from semhitok.tokenizers import TokenizerImageProcessor

GENERATOR = np.random.default_rng(0)


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(GENERATOR.integers(0, 256, (height, width, 3), dtype=np.uint8))


def values(image: np.ndarray) -> torch.Tensor:
    """(H,W,3) uint8 to (3,H,W) in [-1,1]."""
    return torch.from_numpy(image.astype(np.float32) / 255 * 2 - 1).permute(2, 0, 1)


def of_kind(kind: str) -> tuple[bytes, np.ndarray]:
    """A file and the (12,8,3) pixels that it shows."""
    grey, rgb = (
        GENERATOR.integers(0, 256, (12, 8), dtype=np.uint8),
        GENERATOR.integers(0, 256, (12, 8, 3), dtype=np.uint8),
    )
    alpha = np.where(np.arange(8) < 4, 255, 0).astype(np.uint8).repeat(12).reshape(8, 12).T
    on_white = np.where(alpha[..., None] == 255, rgb, 255)
    file, options = io.BytesIO(), {}
    match kind:
        case "RGB":
            image, shown, format = Image.fromarray(rgb), rgb, "PNG"
        case "grey":
            image, shown, format = Image.fromarray(grey), grey, "PNG"
        case "RGBA":
            image, shown, format = Image.fromarray(np.dstack([rgb, alpha])), on_white, "PNG"
        case "LA":
            image, format = Image.fromarray(np.dstack([grey, alpha]), "LA"), "PNG"
            shown = np.where(alpha == 255, grey, 255)
        case "palette":
            image, format = Image.fromarray(rgb).quantize(4), "PNG"
            shown = np.asarray(image.convert("RGB"))
        case "CMYK":
            image, format = Image.fromarray(rgb).convert("CMYK"), "TIFF"
            shown = np.asarray(image.convert("RGB"))
        case "16-bit":
            image, shown, format = Image.fromarray(grey.astype(np.uint16) * 257), grey, "PNG"
        case "EXIF":
            exif = Image.Exif()
            exif[0x0112] = 6  # the camera was turned: the picture is stored lying on its side
            image, shown, format, options = Image.fromarray(np.rot90(rgb).copy()), rgb, "PNG", {"exif": exif}
        case "animated":
            image, shown, format = Image.fromarray(rgb), rgb, "WEBP"
            options = {"save_all": True, "append_images": [Image.new("RGB", (8, 12))], "lossless": True}
    image.save(file, format, **options)
    return file.getvalue(), np.broadcast_to(shown if shown.ndim == 3 else shown[..., None], (12, 8, 3))


@pytest.mark.parametrize("kind", ["RGB", "grey", "RGBA", "LA", "palette", "CMYK", "16-bit", "EXIF", "animated"])
def test_every_kind_of_image(kind: str):
    data, shown = of_kind(kind)
    output = TokenizerImageProcessor(size=8)(data, mode="tile")
    assert output["pixel_values"].shape == (2, 3, 8, 8)
    torch.testing.assert_close(output["pixel_values"][0], values(shown[:8]), atol=1e-6, rtol=0)
    assert output["pixel_values"].dtype == torch.float32


def test_crop_keeps_the_middle_and_resize_the_whole():
    image = picture(24, 16)
    processor = TokenizerImageProcessor(size=16)
    torch.testing.assert_close(processor(image)["pixel_values"][0], values(np.asarray(image)[:, 4:20]))
    squeezed = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))
    for output in (processor(image, mode="resize"), TokenizerImageProcessor(size=16, mode="resize")(image)):
        torch.testing.assert_close(output["pixel_values"][0], values(squeezed))


def test_tiles_are_cut_at_the_images_own_resolution_and_put_together_again():
    images = [picture(20, 40), picture(16, 16)]
    processor = TokenizerImageProcessor(size=16, mode="tile")
    output = processor(images)
    assert output["pixel_values"].shape == (3 * 2 + 1, 3, 16, 16)
    assert [(layout.rows, layout.columns) for layout in output["tiles"]] == [(3, 2), (1, 1)]
    torch.testing.assert_close(output["pixel_values"][1, :, :, :4], values(np.asarray(images[0])[:16, 16:]))
    tiles = processor.postprocess(output["pixel_values"])
    for image, layout, part in zip(images, output["tiles"], (tiles[:6], tiles[6:]), strict=True):
        assert np.array_equal(np.asarray(untile(part, layout)), np.asarray(image))


def test_paths_bytes_and_pictures_one_or_many(tmp_path: Path):
    image = picture(16, 16)
    image.save(tmp_path / "image.png")
    processor = TokenizerImageProcessor(size=16)
    path = tmp_path / "image.png"
    expected = values(np.asarray(image))[None]
    for single in (image, path, str(path), path.read_bytes()):
        torch.testing.assert_close(processor(single)["pixel_values"], expected)
    batch = processor([image, path, path.read_bytes()], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(batch, expected.expand(3, -1, -1, -1))
    torch.testing.assert_close(processor.preprocess(image).to("cpu")["pixel_values"], expected)


def test_postprocess_is_the_inverse_and_clamps():
    image = picture(16, 16)
    processor = TokenizerImageProcessor(size=16)
    pixel_values = processor(image)["pixel_values"]
    assert np.array_equal(np.asarray(processor.postprocess(pixel_values)[0]), np.asarray(image))
    beyond = processor.postprocess(torch.tensor([-3.0, 3.0, 0.0]).view(1, 3, 1, 1).bfloat16())[0]
    assert beyond.getpixel((0, 0)) == (0, 255, 128)


def test_what_it_gives_is_what_the_model_takes():
    model, processor = tiny_model(), TokenizerImageProcessor(size=32)
    ids = model.encode(**processor([picture(50, 40), picture(32, 90)])).ids
    pictures = processor.postprocess(model.decode(ids))
    assert [one.size for one in pictures] == [(32, 32)] * 2


def test_is_saved_and_loaded(tmp_path: Path):
    TokenizerImageProcessor(size=48, mode="resize").save_pretrained(tmp_path)
    loaded = TokenizerImageProcessor.from_pretrained(tmp_path)
    assert (loaded.size, loaded.mode) == (48, "resize")
    image = picture(60, 20)
    torch.testing.assert_close(
        loaded(image)["pixel_values"], TokenizerImageProcessor(size=48, mode="resize")(image)["pixel_values"]
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"size": 0}, "size must be a whole number of pixels, got 0"),
        ({"size": {"height": 8}}, "size must be a whole number of pixels, got"),
        ({"mode": "pad"}, "mode must be one of crop, resize, tile, got 'pad'"),
    ],
)
def test_settings_that_cannot_be(call: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        TokenizerImageProcessor(**call)


def test_calls_that_cannot_be(tmp_path: Path):
    processor = TokenizerImageProcessor(size=8)
    (tmp_path / "notes.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    for name in ("notes.png", "empty.png", "absent.png"):
        with pytest.raises(ImageError, match=name) as caught:
            processor([picture(8, 8), tmp_path / name])
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no images were given"):
        processor([])
    with pytest.raises(ValueError, match="return_tensors must be 'pt', got 'np'"):
        processor(picture(8, 8), return_tensors="np")
    with pytest.raises(ValueError, match="mode must be one of crop, resize, tile, got 'pad'"):
        processor(picture(8, 8), mode="pad")  # type: ignore[arg-type]


def test_arrays_are_taken_as_they_come_from_numpy_and_torch():
    array = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    processor = TokenizerImageProcessor(size=16)
    expected = processor(Image.fromarray(array))["pixel_values"]
    for images in (array, array[None], [array], torch.from_numpy(array).permute(2, 0, 1)):
        assert torch.equal(processor(images)["pixel_values"], expected)
    with pytest.raises(ValueError, match="uint8"):
        processor(array.astype(np.float32))
