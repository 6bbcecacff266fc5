"""Pictures to write, random ones also with descriptions and in tars."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 16


def picture(number: int) -> Image.Image:
    """A random RGB picture of 20 x 24 pixels, the same for the same number."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8))


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def sample_files(number: int) -> dict[str, bytes]:
    return {
        f"{number:04d}.json": json.dumps({"number": number}).encode(),
        f"{number:04d}.png": png(number),
        f"{number:04d}.txt": f"picture {number}\n".encode(),
    }


def save(path: Path, image: Image.Image, kind: str, **options: object) -> Path:
    image.save(path, kind, **options)
    return path


def ramp(channels: int) -> np.ndarray:
    """(16,16,channels) uint8 with a different value at every pixel of a channel."""
    values = np.arange(SIDE * SIDE * channels, dtype=np.int64).reshape(SIDE, SIDE, channels)
    return ((values * 37) % 256).astype(np.uint8)
