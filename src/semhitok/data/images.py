"""Decoding of any image file to RGB, or a one-sentence error.

Conversion of each kind to 8-bit RGB:

* grey, 1-bit, palette, YCbCr, HSV: converted; CMYK by Pillow's formula (embedded colour profiles are ignored);
* with transparency (RGBA, LA, palette or colour-key transparency): composited on white;
* 16-bit grey: scaled by 255 / 65535, not clipped; 16-bit RGB: Pillow's own reduction to the upper 8 bits;
* EXIF orientation: applied; animated: the first frame;
* file extensions are ignored, only the content matters.

A result says nothing about orientation any more, so that an image which is passed on is not rotated again.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from semhitok.process_switch import ProcessSwitch, Undo
from semhitok.storage.byte_ranges import read_file

IMAGE_SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("jpg", "jpeg", "jpe", "jfif", "jp2", "png", "webp", "avif", "gif", "bmp"),
        *("tif", "tiff", "ppm", "pgm", "pbm", "pnm", "tga", "qoi"),
    )
)
"""File suffixes (lower case) of possible images; the content decides."""

MAX_PIXELS = 80_000_000
"""Images with more pixels are rejected before decoding (decompression bombs)."""

MIN_SIDE = 8
"""Images with a shorter side, in pixels, are rejected as too small to tokenize."""

MAX_SCANNED_PIXELS = 3_000_000_000
"""JPEG files with more pixels times scans are rejected: each scan of a progressive file decodes the whole image again."""

# Vector formats are excluded on purpose: Pillow would pass an EPS file to Ghostscript, which executes it.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "MPO", "PPM", "JPEG2000", "TGA", "QOI", "AVIF")

_STRIP_PIXELS = 1_000_000  # converted at a time, so that intermediate images of a large picture stay small
_STORED_SIZE = "semhitok_stored_size"  # in ``info``
_SAYS_ORIENTATION = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # where Pillow finds it in ``info``
_READ_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # compressible PNG texts that state the orientation

_TRANSPOSE_OF_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = [_TRANSPOSE_OF_ORIENTATION[orientation] for orientation in (5, 6, 7, 8)]  # width becomes height


class ImageError(ValueError):
    """An image that cannot be used; the message is one sentence that starts with the file's name."""


def load_image(
    source: str | os.PathLike[str] | bytes | Image.Image,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    draft_side: int | None = None,
) -> Image.Image:
    """Decode an image as 8-bit RGB (conversions are listed in the module docstring).

    Args:
        source: a path, the bytes of a file, or an image opened by Pillow.
        name: name for errors; by default the path.
        max_pixels: images with more pixels are rejected before they are decoded.
        draft_side: side of the square that is made of the image, in pixels: a JPEG file may then be decoded at 1/2, 1/4 or 1/8 of
            its size, as long as both sides stay twice as long. That is faster and changes pixels slightly (docs/data.md). By
            default files are decoded in full.

    Raises:
        ImageError: the file is missing, not a regular file, empty, truncated, corrupt or not an image; it has more than
            ``max_pixels`` pixels, ``MAX_SCANNED_PIXELS`` over all scans, or a side below ``MIN_SIDE``; or it is 32-bit grey
            beyond 16-bit range or floating point (unknown range).
    """
    if isinstance(source, Image.Image):
        return _to_rgb(source, name or str(getattr(source, "filename", "") or "image"), max_pixels)
    if isinstance(source, bytes):
        return _decode(source, name or "image bytes", max_pixels, draft_side)
    name = name or os.fspath(source)
    try:
        data = read_file(Path(source))
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return _decode(data, name, max_pixels, draft_side)


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height in pixels of what ``load_image`` decoded, also if it did so at a fraction of the size."""
    return image.info.get(_STORED_SIZE, image.size)


def _decode(data: bytes, name: str, max_pixels: int, draft_side: int | None) -> Image.Image:
    if not data:
        raise ImageError(f"{name}: the file is empty.")
    data = _without_long_texts(data)
    with _decoding:
        try:
            image = Image.open(io.BytesIO(data), formats=_known_formats())
        except UnidentifiedImageError as error:
            raise ImageError(
                f"{name}: not an image, or truncated, or of a format that Pillow does not read."
            ) from error
        except Image.DecompressionBombError as error:
            raise ImageError(f"{name}: more than {MAX_PIXELS:,} pixels are not accepted.") from error
        except Exception as error:  # parsers of corrupt headers raise almost anything
            raise ImageError(f"{name}: cannot be decoded: {error}.") from error
        with image:
            _check_scans(image, data, name)
            return _to_rgb(image, name, max_pixels, draft_side)


def _without_long_texts(data: bytes) -> bytes:
    """A PNG file without its compressible texts, for whose length Pillow refuses files; other data as it is.

    Texts say nothing about pixels, except for those from which Pillow reads the orientation.
    """
    signature = b"\x89PNG\r\n\x1a\n"
    if not data.startswith(signature) or (b"zTXt" not in data and b"iTXt" not in data):
        return data
    kept, position = [signature], len(signature)
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4])
        kind, end = data[position + 4 : position + 8], position + size + 12
        if kind not in (b"zTXt", b"iTXt") or data.startswith(_READ_TEXTS, position + 8):
            kept.append(data[position:end])
        position = end
    return b"".join([*kept, data[position:]])


def _check_scans(image: Image.Image, data: bytes, name: str) -> None:
    if image.format not in ("JPEG", "MPO"):
        return
    width, height = image.size
    scans = data.count(b"\xff\xda")  # never inside compressed pixels, where 0xff is followed by 0
    if scans * width * height > MAX_SCANNED_PIXELS:
        raise ImageError(
            f"{name}: {scans} scans of {width} x {height} pixels are more than the {MAX_SCANNED_PIXELS:,} pixels in all "
            "scans that are accepted."
        )


def _known_formats() -> list[str]:
    if not all(name in Image.OPEN for name in _FORMATS):
        Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _decode_strictly() -> Undo:
    """Make Pillow reject truncated files, even if another library such as lmms-eval disabled this, and silence warnings.

    Pillow warns about large images, for which we have our own limit, and about odd metadata, which does not affect the pixels.
    """
    changed = ExitStack()
    changed.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
    changed.enter_context(warnings.catch_warnings())
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    warnings.simplefilter("ignore")
    return changed.close


_decoding = ProcessSwitch(_decode_strictly)


def _to_rgb(image: Image.Image, name: str, max_pixels: int, draft_side: int | None = None) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"{name}: {width} x {height} pixels are more than the {max_pixels:,} that are accepted.")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name}: {width} x {height} pixels are too few, both sides must be {MIN_SIDE} or more.")
    if draft_side is not None and image.format == "JPEG":
        image.draft(None, (2 * draft_side, 2 * draft_side))  # pyright: ignore[reportArgumentType]  None keeps the mode
    try:
        with _decoding:
            image.load()
        converted = _convert_mode(image)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders of corrupt data raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(f"{name}: truncated or corrupt: {str(error).rstrip('.')}.") from error
    transpose = _TRANSPOSE_OF_ORIENTATION.get(_orientation(image))
    upright = converted if transpose is None else converted.transpose(transpose)
    for place in _SAYS_ORIENTATION:
        upright.info.pop(place, None)
    if image.size != (width, height):
        upright.info[_STORED_SIZE] = (height, width) if transpose in _TURNED else (width, height)
    return upright


def _convert_mode(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode == "F":
        raise ImageError("floating-point pixels have no agreed range, save it with 8 or 16 bits.")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _in_strips(image, _grey_16_to_rgb)
    if image.has_transparency_data:
        return _in_strips(image, _on_white)
    return image.convert("RGB")


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """The converted image; rows are converted a few at a time, because intermediates take many bytes a pixel."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    converted = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        converted.paste(convert(strip), (0, top))
    return converted


def _grey_16_to_rgb(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("32-bit grey values beyond 0..65535 are not accepted, save it with 8 or 16 bits.")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # broken EXIF must not invalidate a good image
        return 1
