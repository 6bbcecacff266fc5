"""What requests may contain. Fields that would change the answer and are not supported are refused, not ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StringConstraints, model_validator

Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seed = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[StrictInt, Field(ge=1, le=2**31)]
Text = Annotated[str, StringConstraints(max_length=1_000_000)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Strict(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Body(Strict):
    """Fields of every request.

    ``user``, ``metadata``, ``store`` and ``safety_identifier`` describe the client and are ignored.
    """

    model: Annotated[str, StringConstraints(max_length=1000)] | None = None
    user: Any = None
    metadata: Any = None
    store: Any = None
    safety_identifier: Any = None


class TextPart(Strict):
    """Text of a message."""

    type: Literal["text"]
    text: Text


class ImageAddress(Strict):
    """A data URL; ``detail`` is ignored, as all images have the same size for the model."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Strict):
    """An image of a message."""

    type: Literal["image_url"]
    image_url: ImageAddress


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(Strict):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(min_length=1, max_length=1000)]
    name: None = None


class StreamOptions(Strict):
    """Options of a stream; a stream is never padded."""

    include_usage: StrictBool = False
    include_obfuscation: StrictBool | None = None


class ChatBody(Body):
    """``/v1/chat/completions``. ``top_k`` is an extension."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[StrictInt, Field(ge=0, le=2**31)] | None = None
    seed: Seed | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    # Accepted at the values that change nothing.
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logprobs: Literal[False] | None = None

    @model_validator(mode="after")
    def _options_belong_to_a_stream(self) -> ChatBody:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """All stop strings."""
        return () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class ImageBody(Body):
    """``/v1/images/generations``. ``guidance``, ``seed``, ``temperature``, ``top_k`` and ``top_p`` are extensions.

    Without ``guidance`` and ``top_k`` the model's own are used.
    """

    prompt: Annotated[str, StringConstraints(min_length=1, max_length=32_000)]
    n: Count | None = None
    size: Annotated[str, StringConstraints(max_length=100)] | None = None
    response_format: Annotated[str, StringConstraints(max_length=100)] | None = None
    output_format: Literal["png"] | None = None
    quality: Literal["auto", "standard"] | None = None
    background: Literal["auto", "opaque"] | None = None
    stream: Literal[False] | None = None
    guidance: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = None
    seed: Seed | None = None
    temperature: Temperature = 1.0
    top_k: Annotated[StrictInt, Field(ge=0, le=2**31)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0


class TokenizeBody(Body):
    """``/v1/tokenize``: images as data URLs or base64."""

    images: Annotated[list[str], Field(min_length=1)]
    fit: Literal["crop", "resize"] = "crop"


class DetokenizeBody(Body):
    """``/v1/detokenize``: ids of images, for each a list of tokens (of lists of codes, if a token has several)."""

    ids: Annotated[list[list[StrictInt | list[StrictInt]]], Field(min_length=1)]
    grid: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
