"""``/v1/chat/completions``: conversations with images."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from semhitok.inference.text_generation import AnswerOptions
from semhitok.server.admission import Ticket
from semhitok.server.errors import ApiError, refusal
from semhitok.server.responses import EventStream, while_connected
from semhitok.server.schemas import ChatBody, ImagePart, Message, TextPart
from semhitok.server.state import State


async def complete_chat(state: State, request: Request) -> Response:
    """The next message of a conversation, whole or as a stream of events."""
    body = await state.bodies.json(request, ChatBody)
    state.check_model(body.model, language=True)
    wanted = body.max_completion_tokens or body.max_tokens
    if wanted is not None and wanted > state.limits.max_tokens:
        message = f"max_tokens may be at most {state.limits.max_tokens}, got {wanted}"
        raise ApiError(400, message, param="max_tokens", code="too_many_tokens")
    parts = [part for message in body.messages if not isinstance(message.content, str) for part in message.content]
    state.check_images(sum(isinstance(part, ImagePart) for part in parts), "messages")
    ticket = state.admission.enter()
    chat = _Chat(state, body, wanted or state.limits.max_tokens)
    work = chat.stream(ticket) if body.stream else chat.whole()
    return await while_connected(request, ticket, state.limits.max_seconds, work)


class _Chat:
    """One answer.

    Args:
        state: of the server.
        body: of the request.
        max_tokens: new tokens of the answer; fewer where the context ends.
    """

    def __init__(self, state: State, body: ChatBody, max_tokens: int) -> None:
        self.state, self.body, self.created = state, body, int(time.time())
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self.options = AnswerOptions(
            max_tokens,
            temperature=body.temperature or 0.0,
            top_p=1.0 if body.top_p is None else body.top_p,
            top_k=body.top_k or 0,
            stops=body.stops,
        )

    async def whole(self) -> Response:
        """The answer as one JSON value."""
        await self._start()
        try:
            await self.running.finished
        finally:
            self.running.cancel()
        message = {"role": "assistant", "content": self.text.whole(self.generation.found), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._reason()}
        return JSONResponse(self._object("chat.completion", [choice]) | {"usage": self._usage()})

    async def stream(self, ticket: Ticket) -> Response:
        """The answer as events, from the moment at which the request is known to be good."""
        begun = time.monotonic()
        await self._start()
        self.running.finished.add_done_callback(lambda _: ticket.release())
        return EventStream(self._events(), ticket, self.state.limits.max_seconds, begun)

    async def _events(self) -> AsyncGenerator[dict[str, Any]]:
        try:
            yield self._chunk({"role": "assistant", "content": ""})
            more = True
            while more:
                pieces = [await self.running.pieces.get()]
                while not self.running.pieces.empty():  # a slow reader gets what has come meanwhile at once
                    pieces.append(self.running.pieces.get_nowait())
                more = pieces[-1] is not None
                if text := "".join(piece for piece in pieces if piece):
                    yield self._chunk({"content": text})
            await self.running.finished
            yield self._chunk({}, self._reason())
            if self.body.stream_options is not None and self.body.stream_options.include_usage:
                yield self._object("chat.completion.chunk", []) | {"usage": self._usage()}
        finally:
            self.running.cancel()

    async def _start(self) -> None:
        """Read the images and let the answer join the running batch."""
        state = self.state
        self.prompt = await state.images.run(self._prompt)
        image_ids = await state.engine.encode(list(self.prompt.pixel_values))
        seed = secrets.randbits(31) if self.body.seed is None else self.body.seed
        stream = bool(self.body.stream)
        try:
            self.generation, self.text = state.model.answer(
                self.prompt, image_ids, self.options, seed=seed, stream=stream
            )
        except ValueError as error:
            raise refusal(error, "messages") from None
        self.running = state.engine.generate(self.generation, self.text if stream else None)

    def _prompt(self) -> Any:
        messages = [
            {"role": message.role, "content": self._content(message, f"messages.{place}.content")}
            for place, message in enumerate(self.body.messages)
        ]
        try:
            return self.state.model.chat_prompt(messages)
        except ValueError as error:
            code = "context_length_exceeded" if "context" in str(error) else None
            raise refusal(error, "messages", code) from None

    def _content(self, message: Message, param: str) -> Any:
        if isinstance(message.content, str):
            return message.content
        parts: list[dict[str, Any]] = []
        for place, part in enumerate(message.content):
            if isinstance(part, TextPart):
                parts.append({"type": "text", "text": part.text})
                continue
            image = self.state.images.of_text(part.image_url.url, f"{param}.{place}", base64_alone=False)
            parts.append({"type": "image", "image": self.state.model.square(image)})
        return parts

    def _reason(self) -> str:
        found = self.generation.found
        ended = self.text.stopped or found[-1] in self.generation.ends
        return "stop" if ended else "length"

    def _usage(self) -> dict[str, int]:
        prompt, answer = len(self.prompt.ids), len(self.generation.found)
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.state.name, "choices": choices}

    def _chunk(self, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._object("chat.completion.chunk", [choice])
