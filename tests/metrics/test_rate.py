import io

import numpy as np
import pytest
import skimage.metrics
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from semhitok.data.transforms import fit_image, to_uint8
from semhitok.metrics.rate import (
    RatePoint,
    codec_curve,
    downsampling_curve,
    payload_bytes,
    rate_curves,
    thumbnail_size,
    tokenizer_bits,
)


@pytest.fixture(scope="module")
def images():
    photographs = (data.astronaut(), data.coffee())
    return torch.stack([to_uint8(fit_image(Image.fromarray(one), 48, 64, "resize")) for one in photographs])


def encoded(image, codec, **options):
    buffer = io.BytesIO()
    Image.fromarray(rearrange(image, "c h w -> h w c").numpy()).save(buffer, codec, **options)
    return buffer.getvalue()


def test_bits_of_a_tokenizer():
    assert tokenizer_bits(64, 8192) == 64 * 13
    assert tokenizer_bits(256, 196_608) == pytest.approx(256 * 17.585, abs=0.01)


@pytest.mark.parametrize("quality", [1, 50, 95])
def test_payload_leaves_out_headers_and_tables(images, quality):
    jpeg, webp = encoded(images[0], "JPEG", quality=quality), encoded(images[0], "WebP", quality=quality)
    # In entropy-coded data 0xFF is always stuffed, so the last SOS marker is the scan's: 2 + 12 bytes, 3 components.
    assert payload_bytes(jpeg, "JPEG") == len(jpeg) - jpeg.rfind(b"\xff\xda") - 14 - 2
    # RIFF header and chunk header are 12 + 8 bytes; chunks are padded to even length.
    assert payload_bytes(webp, "WebP") in (len(webp) - 20, len(webp) - 21)


def test_payload_of_other_layouts_is_refused(images):
    with pytest.raises(ValueError, match="'VP8 ' chunk"):
        payload_bytes(encoded(images[0], "WebP", lossless=True), "WebP")
    with pytest.raises(ValueError, match="no scan"):
        payload_bytes(b"\xff\xd8 nonsense", "JPEG")


@pytest.mark.parametrize("codec", ["WebP", "JPEG"])
def test_codec_curve(images, codec):
    points = codec_curve(images, codec, (10, 50, 90))
    assert [point.setting for point in points] == ["quality 10", "quality 50", "quality 90"]
    assert points[0].psnr < points[1].psnr < points[2].psnr
    options = {"quality": 50, **({"method": 6} if codec == "WebP" else {})}
    files = [encoded(image, codec, **options) for image in images]
    copies = [np.array(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    originals = rearrange(images, "n c h w -> n h w c").numpy()
    psnr = [skimage.metrics.peak_signal_noise_ratio(*pair) for pair in zip(originals, copies, strict=True)]
    assert points[1].psnr == pytest.approx(np.mean(psnr), abs=1e-3)
    assert points[1].bits == 8 * np.mean([payload_bytes(file, codec) for file in files])


@given(bits=st.floats(24, 1e6), height=st.integers(8, 400), width=st.integers(8, 400))
def test_thumbnails_use_the_budget_and_never_more(bits, height, width):
    rows, columns = thumbnail_size(bits, height, width)
    pixels = min(bits // 24, height * width)
    assert 1 <= rows <= height
    assert 1 <= columns <= width
    assert rows * columns <= pixels
    assert pixels < rows * (columns + 1) or columns == width


def test_downsampling_spends_24_bits_a_pixel_and_is_exact_at_full_size(images):
    points = downsampling_curve(images, [24 * 48 * 64, 832])
    assert [point.bits for point in points] == [24 * 5 * 6, 24 * 48 * 64]
    assert points[0].psnr < 25
    assert points[1].psnr == 100


def test_all_curves_with_a_point_of_equal_raw_bits(images):
    curves = rate_curves(images, RatePoint(832, 20.0, "64 tokens of 8,192"))
    assert list(curves) == ["tokenizer", "WebP", "JPEG", "bicubic down-sampling"]
    assert any(0.8 * 832 < point.bits <= 832 for point in curves["bicubic down-sampling"])
    for points in curves.values():
        assert [point.bits for point in points] == sorted(point.bits for point in points)
