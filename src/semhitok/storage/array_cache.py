"""The output of a frozen teacher, cached on disk: features or stage-1 ids, one row per image.

A cache is one file: a JSON header padded to a fixed length, then the array in C order. The header names the teacher,
the transform and the data that it was computed from; a file that differs in any of them is refused, never reused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig

from semhitok.storage.atomic import put_in_place, remove_leftovers, unfinished_path

FORMAT = "semhitok-array-cache-1"
HEADER_BYTES = 4096


@dataclass(frozen=True)
class CacheKey:
    """What a cached array depends on; hex digests (see :func:`digest_of_module` and :func:`digest_of_text`).

    Attributes:
        teacher: the module that computed it: weights and configuration.
        transform: how images were prepared (sizes, crop, flips).
        data: the images, such as an ``ImageSource.fingerprint``.
    """

    teacher: str
    transform: str
    data: str


def digest_of_text(text: str) -> str:
    """SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def digest_of_module(module: nn.Module) -> str:
    """SHA-256 of a module's configuration (where it has one), parameter names, dtypes, shapes and values, in hex."""
    digest = hashlib.sha256()
    config = getattr(module, "config", None)
    if isinstance(config, PreTrainedConfig):
        digest.update(json.dumps(_without_provenance(config.to_dict()), sort_keys=True, default=str).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        values = tensor.detach().cpu().contiguous()
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _without_provenance(value: Any) -> Any:
    """A configuration without its origin: a copied folder or a newer library still counts as the same teacher."""
    if isinstance(value, dict):
        dropped = ("transformers_version", "_name_or_path", "dtype")
        return {key: _without_provenance(item) for key, item in value.items() if key not in dropped}
    return value


class ArrayCacheWriter:
    """Writes a cache under a temporary name until :meth:`finish`; the context manager discards an unfinished one."""

    def __init__(self, path: Path, key: CacheKey, shape: Sequence[int], dtype: np.dtype) -> None:
        header = {
            "format": FORMAT,
            "key": asdict(key),
            "shape": list(shape),
            "dtype": dtype.name,
        }
        encoded = json.dumps(header).encode().ljust(HEADER_BYTES)
        assert len(encoded) == HEADER_BYTES, "the header holds three digests and a shape"
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        self._path, self._key = path, key
        # Several processes may fill the same cache: each writes its own file, and the last rename wins.
        self._temporary = unfinished_path(path)
        self._shape, self._dtype = tuple(shape), dtype
        # Plain writes, not a memory map: on a full disk a write raises an error, a mapped page kills the process.
        self._file = self._temporary.open("wb", buffering=0)
        self._put(0, encoded)
        self._written = np.zeros(shape[0], dtype=bool)

    def write(self, start: int, rows: np.ndarray) -> None:
        """Store ``rows`` (n, ...) as rows ``start`` to ``start + n``; cast to the cache's dtype.

        Raises:
            ValueError: the rows do not fit the array, or hold values that its dtype cannot.
        """
        stop = start + len(rows)
        if start < 0 or stop > self._shape[0] or rows.shape[1:] != self._shape[1:]:
            raise ValueError(
                f"Rows {start} to {stop} of shape {rows.shape[1:]} do not fit the cache {self._path} "
                f"of shape {self._shape}."
            )
        with np.errstate(over="ignore"):  # reported below, with the rows
            cast = rows.astype(self._dtype)
        integral = np.issubdtype(self._dtype, np.integer)
        if not (np.array_equal(cast, rows) if integral else np.isfinite(cast).all()):
            raise ValueError(
                f"Rows {start} to {stop} hold values that the cache {self._path} cannot store as {self._dtype}."
            )
        row_bytes = math.prod(self._shape[1:]) * self._dtype.itemsize
        self._put(HEADER_BYTES + start * row_bytes, cast.tobytes())
        self._written[start:stop] = True

    def finish(self) -> ArrayCache:
        """Give the file its final name and open it.

        Raises:
            ValueError: some rows were never written.
        """
        if not self._written.all():
            missing = int((~self._written).sum())
            raise ValueError(f"The cache {self._path} lacks {missing} of {len(self._written)} rows and was not kept.")
        self._file.close()
        put_in_place(self._temporary, self._path)
        return ArrayCache.open(self._path, self._key)

    def _put(self, offset: int, data: bytes) -> None:
        try:
            self._file.seek(offset)
            remaining = memoryview(data)
            while remaining:  # an unbuffered write may take only a part
                remaining = remaining[self._file.write(remaining) :]
        except OSError as error:
            raise ValueError(f"The cache {self._path} cannot be written: {error.strerror}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)  # absent once finished


@dataclass(frozen=True)
class ArrayCache:
    """A finished cache.

    Attributes:
        array: read-only memory map; one row per image, in the order of the data.
    """

    array: np.memmap

    @staticmethod
    def create(path: Path | str, key: CacheKey, shape: Sequence[int], dtype: Any) -> ArrayCacheWriter:
        """Start writing a cache of ``shape`` (rows first), usually float16 for features and int32 for ids.

        An existing cache at ``path`` stays as it is until the new one is finished.
        """
        return ArrayCacheWriter(Path(path), key, shape, np.dtype(dtype))

    @classmethod
    def open(cls, path: Path | str, key: CacheKey) -> ArrayCache:
        """Map a finished cache.

        Raises:
            ValueError: the file is missing, not a cache, truncated, or computed from something else.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"There is no finished cache at {path}.")
        with path.open("rb") as file:
            encoded = file.read(HEADER_BYTES)
        try:
            header = json.loads(encoded)
            found = CacheKey(**header["key"])
            shape, dtype = tuple(header["shape"]), np.dtype(header["dtype"])
            if header["format"] != FORMAT:
                raise ValueError(header["format"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{path} is not a cache of this version of semhitok; delete it to have it recomputed."
            ) from None
        expected = HEADER_BYTES + math.prod(shape) * dtype.itemsize
        if path.stat().st_size != expected:
            raise ValueError(
                f"The cache {path} has {path.stat().st_size} bytes where its header says {expected}; "
                "delete it to have it recomputed."
            )
        differing = [name for name, value in asdict(key).items() if value != getattr(found, name)]
        if differing:
            raise ValueError(
                f"The cache {path} was made from a different {' and '.join(differing)}; "
                "delete it or choose another folder to have it recomputed."
            )
        return cls(np.memmap(path, dtype, "r", HEADER_BYTES, shape))
