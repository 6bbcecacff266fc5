"""Images of requests: decoded in a few threads, within the limit of pixels, and never fetched."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from semhitok.data.image_sources import decode_base64
from semhitok.inference.served_model import ServedModel
from semhitok.server.errors import ApiError, refusal

THREADS = 2
"""Images that are decoded at the same time; each may take three bytes a pixel."""

_Result = TypeVar("_Result")


class ImageReader:
    """Decodes the images of requests.

    Args:
        model: knows the limit of pixels.
    """

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="semhitok-images")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Call a function in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def of_bytes(self, data: bytes, param: str) -> Image.Image:
        """The image in the bytes of a file; ``param`` names it in errors. Called in a thread."""
        try:
            return self.model.read_image(data, param)
        except ValueError as error:
            raise refusal(error, param, "invalid_image") from None

    def of_text(self, text: str, param: str, *, base64_alone: bool) -> Image.Image:
        """The image in a data URL, or in base64 without one. Called in a thread."""
        start = text[:8].lower()
        if start.startswith(("http:", "https:")):
            message = f"{param}: images are not fetched from the network, send a data URL (data:image/png;base64,...)"
            raise ApiError(400, message, param=param, code="invalid_image_url")
        if not start.startswith("data:") and not base64_alone:
            message = f"{param}: an image must be a data URL (data:image/png;base64,...)"
            raise ApiError(400, message, param=param, code="invalid_image_url")
        try:
            data = decode_base64(text)
        except ValueError as error:
            raise refusal(ValueError(f"{param}: {error}"), param, "invalid_image") from None
        return self.of_bytes(data, param)


def png_of(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def b64_json(image: Image.Image) -> str:
    """An image as a PNG file in base64."""
    return base64.b64encode(png_of(image)).decode("ascii")
