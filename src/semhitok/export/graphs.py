"""A tokenizer as two graphs of ``torch.export``: pixels to ids and ids to pixels, for any number of square images.

Shapes: B images, S pixels a side (the tokenizer's ``image_size``), N tokens, C codes per token.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import is_concrete_int

from semhitok import __version__
from semhitok.storage.configuration import one_line
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint
from semhitok.tokenizers.protocol import Tokenizer

SIDES = ("encoder", "decoder")
INPUTS = {"encoder": "pixel_values", "decoder": "ids"}
OUTPUTS = {"encoder": "ids", "decoder": "pixel_values"}
EXAMPLES = 2  # images that are traced; with one, torch.export would take the batch size for a constant


class Encoder(nn.Module):
    """Images (B,3,S,S) in [-1,1] -> ids (B,N) or (B,N,C), int64."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.tokenizer.encode(pixel_values).ids


class Decoder(nn.Module):
    """Ids (B,N) or (B,N,C), int64 -> images (B,3,S,S) in [-1,1]."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, ids: Tensor) -> Tensor:
        return self.tokenizer.decode(ids)


@torch.no_grad()
def trace(model: Tokenizer) -> dict[str, ExportedProgram]:
    """The graphs ``encoder`` and ``decoder`` of a tokenizer in fp32, with its encoder side, on the CPU.

    Raises:
        ValueError: the model has no encoder side or is not in fp32, or a part of it cannot be a graph; the message names the
            part and why.
    """
    check_graphs_possible(model)
    example = torch.zeros(EXAMPLES, 3, model.config.image_size, model.config.image_size)
    ids = model.encode(example).ids
    model.decode(ids)  # both fill what is computed once and kept, which would otherwise hold symbols
    return {
        "encoder": _traced("encoder", Encoder(model), example),
        "decoder": _traced("decoder", Decoder(model), ids),
    }


def check_graphs_possible(model: Tokenizer) -> None:
    """Raise ``ValueError`` for a model without its encoder side or not in fp32."""
    if not model.config.encoder:
        raise ValueError("a model without its encoder side cannot be exported: load it with encoder=True")
    if {parameter.dtype for parameter in model.parameters()} != {torch.float32}:
        raise ValueError("the model to export must be in float32: load it with dtype=torch.float32")


@torch.no_grad()
def graph_metadata(model: Tokenizer, name: str, licence: str | None) -> dict[str, Any]:
    """What a program needs to know to run the graphs; JSON-serialisable, stored in every file of a graph.

    ``ids_shape`` is that of the ids of one image. For ids with a semantic part, ``subcodebook_sizes`` is m, or the list of all m_k: the ids of semantic code k follow those of
    k - 1 (``quantizers.layout``).
    """
    config = model.config
    semantic = {}
    if model.semantic_codebook_size is not None:
        layout = config.id_layout
        sizes = layout.largest if layout.is_uniform else list(layout.sizes)
        semantic = {"semantic_codebook_size": model.semantic_codebook_size, "subcodebook_sizes": sizes}
    return {
        "name": name,
        "tokenizer": config.model_type,
        "image_size": config.image_size,
        "grid": list(config.grid(config.image_size, config.image_size)),
        "ids_shape": list(model.encode(torch.zeros(1, 3, config.image_size, config.image_size)).ids.shape[1:]),
        "codes_per_token": model.codes_per_token,
        "vocab_size": model.vocab_size,
        **semantic,
        "pixel_range": [-1, 1],
        "fingerprint": tokenizer_fingerprint(model),  # pyright: ignore[reportArgumentType]
        "licence": licence or config.provenance.get("licence", "not stated"),
        "semhitok": __version__,
    }


def as_texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The metadata as texts: every value but a text as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}


@contextmanager
def quietly() -> Iterator[None]:
    """Without the progress, warnings and log lines of the exporters, which are about their own inner workings."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _traced(side: str, graph: nn.Module, example: Tensor) -> ExportedProgram:
    with _parts(graph) as parts, quietly():
        try:
            return torch.export.export(graph, (example,), dynamic_shapes=({0: Dim("batch", min=1)},), strict=False)
        except Exception as error:
            fixed = bool(parts.fixing)
            part = parts.fixing[0] if fixed else next(iter(parts.running[::-1]), "its code")
            reason = "it fixes the number of images" if fixed else one_line(error)
            raise ValueError(f"the {side} cannot be exported because of {part}: {reason}") from error


class _Parts:
    """What runs while a graph is traced: the parts that have begun and not ended, and the first that has fixed the batch size."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.fixing: list[str] = []


@contextmanager
def _parts(graph: nn.Module) -> Iterator[_Parts]:
    parts, batch = _Parts(), []

    def begin(name: str, inputs: tuple[Any, ...]) -> None:
        if not batch and inputs and isinstance(inputs[0], Tensor):
            batch.append(inputs[0].shape[0])
        note()  # what encloses it may have fixed the number of images before
        parts.running.append(name)

    def end() -> None:
        note()
        parts.running.pop()

    def note() -> None:
        if batch and not isinstance(batch[0], int) and is_concrete_int(batch[0]) and not parts.fixing:
            parts.fixing.extend(parts.running[-1:])

    hooks = []
    for path, module in graph.named_modules():
        name = f"{path.removeprefix('tokenizer').removeprefix('.') or 'the tokenizer'} ({type(module).__name__})"
        hooks.append(module.register_forward_pre_hook(lambda _, inputs, name=name: begin(name, inputs)))
        hooks.append(module.register_forward_hook(lambda *_: end()))
    try:
        yield parts
    finally:
        for hook in hooks:
            hook.remove()
