"""Token files: parquet with the ids of images, their captions and descriptions, written once and trained from without pixels.

One row is one image, with the columns

    key                       its name in its shard
    semantic_ids, pixel_ids   (N,) codes k and j, for tokenizers whose ids have a semantic part: uint16 and uint8 where they fit
    ids                       (N C,) codes, token by token, for all other tokenizers
    height, width             size of the stored image in pixels
    captions                  its captions
    metadata                  all other fields of its description, a JSON object
    chat                      whether the description holds messages or questions

The metadata of the file (key ``semhitok``) is a ``TokenFormat`` and the shard it was made from, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

METADATA_KEY = b"semhitok"
VERSION = 1
SEMANTIC, PIXEL, IDS = "semantic_ids", "pixel_ids", "ids"
OTHER_COLUMNS = ("key", "height", "width", "captions", "metadata", "chat")
CHATS = ("messages", "conversations", "qa")
"""Fields of a description that hold a chat."""


@dataclass(frozen=True)
class TokenFormat:
    """What the ids of a token file are.

    Attributes:
        tokenizer: fingerprint of the tokenizer (``tokenizers.fingerprint``).
        kind: its ``model_type``.
        image_size, fit: side in pixels of the encoded squares, and how images were made square.
        grid: rows and columns of an image's N tokens.
        codes_per_token: C.
        vocab_size: number of joint ids, or of the ids of a code if a token has several.
        subcodebook_sizes: number of pixel codes m of each semantic code, one number if all have the same; None for ids without a
            semantic part.
        semantic_codes: K; None as above.
        batch_size: images of a batch: results may differ in the last bit between sizes.
        jpeg: whether JPEG files were decoded in ``full``, or at a fraction of their size where that was enough (``draft``).
    """

    tokenizer: str
    kind: str
    image_size: int
    fit: str
    grid: tuple[int, int]
    codes_per_token: int
    vocab_size: int
    subcodebook_sizes: int | tuple[int, ...] | None = None
    semantic_codes: int | None = None
    batch_size: int = 32
    jpeg: Literal["full", "draft"] = "full"

    @property
    def id_columns(self) -> dict[str, np.dtype]:
        """Names and smallest types of the columns that hold ids."""
        if self.subcodebook_sizes is None or self.semantic_codes is None:
            return {IDS: _unsigned(self.vocab_size)}
        sizes = self.subcodebook_sizes
        largest = sizes if isinstance(sizes, int) else max(sizes)
        return {SEMANTIC: _unsigned(self.semantic_codes), PIXEL: _unsigned(largest)}

    @property
    def shape(self) -> tuple[int, ...]:
        """(N,), or (N,C) if a token has several codes."""
        tokens = self.grid[0] * self.grid[1]
        return (tokens,) if self.codes_per_token == 1 else (tokens, self.codes_per_token)

    def split(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Ids (B,N) or (B,N,C) as columns (B,N) or (B,N C)."""
        if IDS in self.id_columns:
            return {IDS: ids.reshape(len(ids), -1).astype(self.id_columns[IDS])}
        offsets = self._offsets()
        semantic = np.searchsorted(offsets, ids, side="right") - 1
        columns = {SEMANTIC: semantic, PIXEL: ids - offsets[semantic]}
        return {name: columns[name].astype(dtype) for name, dtype in self.id_columns.items()}

    def join(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Inverse of ``split``, int64."""
        if IDS in columns:
            return columns[IDS].astype(np.int64).reshape(len(columns[IDS]), *self.shape)
        return self._offsets()[columns[SEMANTIC]] + columns[PIXEL].astype(np.int64)

    def _offsets(self) -> np.ndarray:
        """(K,) first joint id of each semantic code, see ``quantizers.layout``."""
        sizes = np.broadcast_to(np.asarray(self.subcodebook_sizes, dtype=np.int64), (self.semantic_codes or 0,))
        return np.cumsum(sizes) - sizes


@dataclass(frozen=True)
class TokenRow:
    """One image of a token file without its ids.

    Attributes:
        key: name of the image in its shard.
        height, width: its size in pixels.
        description: the fields that describe it, JSON values.
    """

    key: str
    height: int
    width: int
    description: Mapping[str, Any]


def schema(form: TokenFormat, source: Mapping[str, str]) -> Any:
    """The ``pyarrow.Schema`` of a token file; ``source`` names the shard and what it looked like."""
    pa = import_pyarrow()
    length = int(np.prod(form.shape))
    columns = [(name, pa.list_(pa.from_numpy_dtype(dtype), length)) for name, dtype in form.id_columns.items()]
    columns = [("key", pa.string()), *columns, ("height", pa.int32()), ("width", pa.int32())]
    columns += [("captions", pa.list_(pa.string())), ("metadata", pa.string()), ("chat", pa.bool_())]
    content = {"version": VERSION, **asdict(form), "source": dict(source)}
    return pa.schema(columns, metadata={METADATA_KEY: json.dumps(content).encode()})


def table(form: TokenFormat, layout: Any, ids: np.ndarray, rows: Sequence[TokenRow]) -> Any:
    """A ``pyarrow.Table`` of a schema, from ids (B,N) or (B,N,C) and the rest of each row."""
    pa = import_pyarrow()
    columns: dict[str, Any] = {}
    for name, values in form.split(ids).items():
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    columns["key"] = [_storable(row.key) for row in rows]
    columns["height"], columns["width"] = [row.height for row in rows], [row.width for row in rows]
    described = [_described(row.description) for row in rows]
    for place, name in enumerate(("captions", "metadata", "chat")):
        columns[name] = [each[place] for each in described]
    arrays = [
        each if isinstance(each := columns[field.name], pa.Array) else pa.array(each, field.type) for field in layout
    ]
    return pa.Table.from_arrays(arrays, schema=layout)


def read_format(path: Path) -> tuple[TokenFormat, dict[str, str], Any]:
    """The format of a token file, the shard it was made from, and its ``pyarrow`` file metadata.

    Raises:
        ValueError: it is damaged, no token file, of a later version, or lacks columns.
    """
    import_pyarrow()
    from pyarrow import ArrowException, parquet

    try:
        found = parquet.read_metadata(path)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path}: is not a parquet file, or is damaged: {_first_line(error)}.") from error
    form, source = _parse(path, (found.metadata or {}).get(METADATA_KEY))
    present = set(found.schema.to_arrow_schema().names)
    missing = [name for name in (*form.id_columns, *OTHER_COLUMNS) if name not in present]
    if missing:
        raise ValueError(f"{path}: lacks the columns {', '.join(missing)}, which `semhitok pretokenize` writes.")
    return form, source, found


def is_token_file(path: Path) -> bool:
    """Whether a parquet file has the metadata of a token file; False also if it cannot be read."""
    import_pyarrow()
    from pyarrow import ArrowException, parquet

    try:
        return METADATA_KEY in (parquet.read_metadata(path).metadata or {})
    except (ArrowException, OSError):
        return False


def _parse(path: Path, content: bytes | None) -> tuple[TokenFormat, dict[str, str]]:
    if content is None:
        raise ValueError(
            f"{path}: says nothing about a tokenizer; parquet with ids is written by `semhitok pretokenize`."
        )
    try:
        values = json.loads(content)
        if values["version"] > VERSION:
            raise ValueError(f"{path}: has version {values['version']} of the format, up to {VERSION} is read.")
        values.setdefault("jpeg", "full")  # files from before there were drafts
        known = {field.name: values[field.name] for field in fields(TokenFormat)}
        rows, columns = known["grid"]
        sizes = known["subcodebook_sizes"]
        known |= {"grid": (rows, columns), "subcodebook_sizes": tuple(sizes) if isinstance(sizes, list) else sizes}
        return TokenFormat(**known), dict(values["source"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: its metadata are not those of `semhitok pretokenize` ({error!r}).") from error


def import_pyarrow() -> ModuleType:
    """The package ``pyarrow``; raises a ``ValueError`` that says how to install it."""
    try:
        import pyarrow
    except ImportError as error:
        raise ValueError("parquet files need the package pyarrow: pip install semhitok[data].") from error
    return pyarrow


def _described(description: Mapping[str, Any]) -> tuple[list[str] | None, str, bool]:
    """Captions, other fields as JSON, and whether there is a chat."""
    rest = {name: value for name, value in description.items() if _is_json(value)}
    captions = None
    for name in ("captions", "caption"):
        found = [rest[name]] if isinstance(rest.get(name), str) else rest.get(name)
        if isinstance(found, list) and found and all(isinstance(text, str) and _is_text(text) for text in found):
            captions = found
            del rest[name]
            break
    return captions, json.dumps(rest), any(rest.get(name) for name in CHATS)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _is_text(text: str) -> bool:
    return _storable(text) == text


def _storable(text: str) -> str:
    """Bytes of file names that are not UTF-8, and halves of surrogate pairs, as escapes: parquet holds UTF-8 only."""
    return text.encode("utf-8", "backslashreplace").decode()


def _unsigned(count: int) -> np.dtype:
    """The smallest unsigned type of ids below ``count``."""
    return np.min_scalar_type(max(0, count - 1))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
