"""``/v1/images/generations``: images from a prompt."""

from __future__ import annotations

import secrets
import time
from typing import Any

import torch
from fastapi import Request
from fastapi.responses import JSONResponse, Response

from semhitok.server.errors import ApiError, refusal
from semhitok.server.images import b64_json
from semhitok.server.responses import while_connected
from semhitok.server.schemas import ImageBody
from semhitok.server.state import State


async def generate_images(state: State, request: Request) -> Response:
    """Images as PNG files in base64; image i is generated with seed + i."""
    body = await state.bodies.json(request, ImageBody)
    state.check_model(body.model, language=True)
    side = state.model.image_size
    if body.size not in (None, "auto", f"{side}x{side}"):
        raise ApiError(400, f"size: this model generates images of {side}x{side}, got {body.size!r}", param="size")
    if body.response_format not in (None, "b64_json"):
        message = f"response_format: images are returned as b64_json, got {body.response_format!r}"
        raise ApiError(400, message, param="response_format")
    count = body.n or 1
    state.check_images(count, "n")
    ticket = state.admission.enter(count)
    return await while_connected(request, ticket, state.limits.max_seconds, _generate(state, body, count))


async def _generate(state: State, body: ImageBody, count: int) -> Response:
    seed = secrets.randbits(31) if body.seed is None else body.seed
    created = int(time.time())

    def generation(number: int) -> Any:
        options = {name: getattr(body, name) for name in ("guidance", "temperature", "top_k", "top_p")}
        try:
            return state.model.image(body.prompt, seed=seed + number, **options)
        except ValueError as error:
            raise refusal(error, "prompt") from None

    # All prompts first: a refusal must not leave others running.
    generations = await state.images.run(lambda: [generation(number) for number in range(count)])
    running = [state.engine.generate(each) for each in generations]
    try:
        for each in running:
            await each.finished
    finally:
        for each in running:
            each.cancel()
    images = await state.engine.decode([torch.tensor(each.found) for each in generations])
    encoded = await state.images.run(lambda: [b64_json(image) for image in images])
    data = [{"b64_json": image, "seed": seed + number} for number, image in enumerate(encoded)]
    usage = {
        "input_tokens": len(generations[0].prompt),
        "output_tokens": sum(len(each.found) for each in generations),
    }
    usage["total_tokens"] = sum(usage.values())
    details = {"input_tokens_details": {"text_tokens": usage["input_tokens"], "image_tokens": 0}}
    return JSONResponse({"created": created, "data": data, "output_format": "png", "usage": usage | details})
