"""Rate and distortion: PSNR against bits per image for the tokenizer, WebP, JPEG and plain down-sampling.

A tokenizer spends N log2(V) bits on N ids of a vocabulary of V, as its codebook is known to both sides. Likewise only the
*payload* of the codecs counts, the entropy-coded data without container, headers and tables, so their curves are further
left than their file sizes. Every curve is the mean over the same images.

Shapes: N images, C = 3 channels, H x W pixels, uint8.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from semhitok.metrics.reconstruction import psnr_per_image

Codec = Literal["WebP", "JPEG"]
TOKENIZER = "tokenizer"
"""Label of the tokenizer's own point among the curves."""

BICUBIC = Image.Resampling.BICUBIC
QUALITIES = (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90)


@dataclass(frozen=True)
class RatePoint:
    """Mean bits per image and mean PSNR in dB of one ``setting`` (a quality, a size, a vocabulary)."""

    bits: float
    psnr: float
    setting: str


def tokenizer_bits(tokens: int, vocab_size: int) -> float:
    """Bits of an image of N ids: N log2(V)."""
    return tokens * math.log2(vocab_size)


def codec_curve(images_NCHW: Tensor, codec: Codec, qualities: Sequence[int] = QUALITIES) -> list[RatePoint]:
    """Points of an image codec, one per quality (0 to 100), sorted by bits.

    Args:
        images_NCHW: uint8 images.
        codec: ``WebP`` (lossy, slowest and best method) or ``JPEG`` (baseline, its standard Huffman tables).
        qualities: quality settings of the encoder.
    """
    points = []
    for quality in qualities:
        bits, copies = 0, []
        for image in _pil_images(images_NCHW):
            buffer = io.BytesIO()
            options = {"method": 6} if codec == "WebP" else {}
            image.save(buffer, codec, quality=quality, **options)
            bits += 8 * payload_bytes(buffer.getvalue(), codec)
            copies.append(_tensor(Image.open(buffer)))
        points.append(RatePoint(bits / len(copies), _mean_psnr(images_NCHW, torch.stack(copies)), f"quality {quality}"))
    return sorted(points, key=lambda point: point.bits)


def payload_bytes(data: bytes, codec: Codec) -> int:
    """Bytes of entropy-coded data in a lossy WebP or baseline JPEG file, without headers and tables.

    Raises:
        ValueError: the data has an unexpected layout.
    """
    if codec == "WebP":
        # RIFF container: "RIFF" size "WEBP", then one "VP8 " chunk with its size (little-endian).
        if data[12:16] == b"VP8 ":
            return int.from_bytes(data[16:20], "little")
        raise ValueError("the WebP data is not a plain lossy image: a single 'VP8 ' chunk is expected.")
    position = 2  # after the start-of-image marker come segments: marker (2 bytes), length (2 bytes, big-endian)
    while data[position : position + 1] == b"\xff":
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        position += 2 + length
        if marker == 0xDA:  # start of scan: entropy-coded data up to the end-of-image marker (2 bytes)
            return len(data) - position - 2
    raise ValueError("the JPEG data holds no scan: a baseline JPEG file is expected.")


def thumbnail_size(bits: float, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the largest thumbnail of about this aspect whose raw 24-bit pixels fit into ``bits``.

    At least one pixel, whatever the budget.
    """
    pixels = max(1, min(int(bits / 24), height * width))
    rows = min(max(1, math.floor(math.sqrt(pixels * height / width))), pixels)
    return rows, min(pixels // rows, width)


def downsampling_curve(images_NCHW: Tensor, budgets: Iterable[float]) -> list[RatePoint]:
    """Points of bicubic down-sampling to raw 24-bit pixels and bicubic up-sampling, one per budget in bits.

    Args:
        images_NCHW: uint8 images.
        budgets: bits per image; each point uses the largest thumbnail that fits and reports its actual bits.
    """
    height, width = images_NCHW.shape[-2:]
    points = []
    for rows, columns in sorted({thumbnail_size(bits, height, width) for bits in budgets}):
        thumbnails = [image.resize((columns, rows), BICUBIC) for image in _pil_images(images_NCHW)]
        copies = torch.stack([_tensor(thumbnail.resize((width, height), BICUBIC)) for thumbnail in thumbnails])
        psnr = _mean_psnr(images_NCHW, copies)
        points.append(RatePoint(24.0 * rows * columns, psnr, f"{columns} x {rows} pixels"))
    return sorted(points, key=lambda point: point.bits)


def rate_curves(images_NCHW: Tensor, tokenizer: RatePoint) -> dict[str, list[RatePoint]]:
    """The tokenizer's point and all other curves, by label, over the same uint8 images.

    Down-sampling is sampled at powers of two around the tokenizer's bits, so one of its points has the same raw bits.
    """
    height, width = images_NCHW.shape[-2:]
    budgets = [tokenizer.bits * 2**power for power in range(-2, 8) if tokenizer.bits * 2**power <= 12 * height * width]
    return {
        TOKENIZER: [tokenizer],
        "WebP": codec_curve(images_NCHW, "WebP"),
        "JPEG": codec_curve(images_NCHW, "JPEG"),
        "bicubic down-sampling": downsampling_curve(images_NCHW, budgets),
    }


def _pil_images(images_NCHW: Tensor) -> list[Image.Image]:
    return [Image.fromarray(rearrange(image, "c h w -> h w c").numpy()) for image in images_NCHW.cpu()]


def _tensor(image: Image.Image) -> Tensor:
    return rearrange(torch.from_numpy(np.array(image.convert("RGB"))), "h w c -> c h w")


def _mean_psnr(originals_NCHW: Tensor, copies_NCHW: Tensor) -> float:
    """Mean PSNR of uint8 images."""
    return psnr_per_image(originals_NCHW.cpu() / 127.5 - 1, copies_NCHW / 127.5 - 1).mean().item()
