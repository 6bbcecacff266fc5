"""``/v1/tokenize`` and ``/v1/detokenize``: images to ids and back, as JSON or in binary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from torch import Tensor

from semhitok.inference.token_files import Grid, ids_of_npy, npy_of, npy_of_ids
from semhitok.server.bodies import content_type
from semhitok.server.errors import ApiError, refusal
from semhitok.server.images import b64_json, png_of
from semhitok.server.responses import while_connected
from semhitok.server.schemas import DetokenizeBody, TokenizeBody
from semhitok.server.state import State

BINARY = "application/octet-stream"
FITS = ("crop", "resize")


async def tokenize(state: State, request: Request) -> Response:
    """Ids of images: of a JSON list of data URLs, or of an image file as the body.

    With ``Accept: application/octet-stream`` the answer is a .npy file (images, rows, columns), otherwise JSON.
    """
    kind = content_type(request)
    if kind == BINARY or kind.startswith("image/"):
        sources: Sequence[str | bytes] = [await state.bodies.read(request)]
        fit = request.query_params.get("fit", "crop")
        if fit not in FITS:
            raise ApiError(400, "fit: must be crop or resize", param="fit")
    else:
        body = await state.bodies.json(request, TokenizeBody)
        state.check_model(body.model, language=False)
        sources, fit = body.images, body.fit
    state.check_images(len(sources), "images")

    def read(place: int, source: str | bytes) -> Tensor:
        param = f"images.{place}"
        if isinstance(source, bytes):
            image = state.images.of_bytes(source, "the image")
        else:
            image = state.images.of_text(source, param, base64_alone=True)
        return state.model.pixel_values(image, "resize" if fit == "resize" else "crop")

    async def answer() -> Response:
        squares = [await state.images.run(lambda p=place, s=source: read(p, s)) for place, source in enumerate(sources)]
        ids = await state.engine.encode(squares)
        if _wants(request, BINARY):
            return Response(npy_of_ids(ids, state.model.grid), media_type=BINARY)
        data = [{"index": index, "ids": each} for index, each in enumerate(ids.tolist())]
        tokenizer = state.model.tokenizer
        facts = {
            "grid": list(state.model.grid),
            "vocab_size": tokenizer.vocab_size,
            "codes_per_token": tokenizer.codes_per_token,
        }
        return JSONResponse({"object": "list", "model": state.name, **facts, "data": data})

    return await while_connected(request, state.admission.enter(), state.limits.max_seconds, answer())


async def detokenize(state: State, request: Request) -> Response:
    """Images of ids: of JSON, or of a .npy file as ``semhitok encode`` writes it.

    With ``Accept: image/png`` the answer is the PNG file of a single image, with ``Accept: application/octet-stream`` a .npy
    file of uint8 (images, height, width, 3), otherwise JSON with PNG files in base64.
    """
    if content_type(request) == BINARY:
        ids, grid = _read_npy(await state.bodies.read(request))
    else:
        body = await state.bodies.json(request, DetokenizeBody)
        state.check_model(body.model, language=False)
        try:
            ids = torch.tensor(body.ids, dtype=torch.long)
        except (ValueError, TypeError, OverflowError, RuntimeError):
            raise ApiError(400, "ids: all images must have equally many tokens, below 2**63", param="ids") from None
        grid = None if body.grid is None else (body.grid[0], body.grid[1])
    try:
        state.model.check_ids(ids, grid)
    except ValueError as error:
        raise refusal(error, "ids") from None
    state.check_images(len(ids), "ids")
    if _wants(request, "image/png") and len(ids) != 1:
        raise ApiError(400, f"a PNG file holds one image, got ids of {len(ids)}: ask for JSON or {BINARY}", param="ids")

    async def answer() -> Response:
        images = await state.engine.decode(list(ids), grid)
        if _wants(request, "image/png"):
            return Response(await state.images.run(lambda: png_of(images[0])), media_type="image/png")
        if _wants(request, BINARY):
            return Response(npy_of(np.stack([np.asarray(image) for image in images])), media_type=BINARY)
        encoded = await state.images.run(lambda: [b64_json(image) for image in images])
        data = [{"index": index, "b64_json": each} for index, each in enumerate(encoded)]
        return JSONResponse({"object": "list", "model": state.name, "data": data})

    return await while_connected(request, state.admission.enter(), state.limits.max_seconds, answer())


def _read_npy(data: bytes) -> tuple[Tensor, Grid | None]:
    try:
        ids, grid = ids_of_npy(data)
    except (ValueError, OverflowError, TypeError, KeyError, SyntaxError, EOFError) as error:
        raise refusal(ValueError(f"the body is not a .npy file of ids: {error}"), "ids") from None
    return (ids[None] if ids.ndim == 1 else ids).long() if not ids.is_floating_point() else ids, grid


def _wants(request: Request, kind: str) -> bool:
    """Whether the client accepts this media type by name."""
    accepted = [entry.partition(";")[0].strip().lower() for entry in request.headers.get("accept", "").split(",")]
    return kind in accepted
