"""Files of weights that nobody vouches for: what their headers hold, before a model is built, and whether their values are numbers."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semhitok.storage.configuration import DamagedFileError, one_line
from semhitok.storage.foreign_code import load_without_foreign_code

if TYPE_CHECKING:  # the command line starts without torch
    from torch import Tensor

SLACK_VALUES, SLACK_TENSORS = 2**24, 1000
"""What a model may have beyond twice its file: tied heads, and a bundled image tokenizer that its checkpoint leaves out."""
_innermost = threading.local()


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file: its type as the format names it (F32, BF16, I64, C64, ...) and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def is_floating_point(self) -> bool:
        """Whether it holds real numbers."""
        return self.dtype.startswith(("F", "BF"))

    @property
    def values(self) -> int:
        """Its numbers; eight for each four bytes of integers, into which quantization packs them."""
        bytes_of_each = 1 if self.is_floating_point else 8
        return math.prod(self.shape) * bytes_of_each


def stored_tensors(folder: Path, variant: str | None = None) -> dict[str, StoredTensor]:
    """The tensors of a folder's ``model.safetensors``, or of the shards that its indices name, from the headers alone.

    Raises:
        DamagedFileError: a file is not one of safetensors.
        ValueError: an index of shards points outside the folder, or is none.
    """
    names = {"model.safetensors" if variant is None else f"model.{variant}.safetensors"}
    for index in folder.glob("*.index.json"):
        names |= set(_shards(index))
    return read_headers(folder / name for name in sorted(names) if name.endswith(".safetensors"))


def read_headers(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """The tensors of those safetensors files that exist.

    Raises:
        DamagedFileError: a file is not one of safetensors.
    """
    from safetensors import SafetensorError, safe_open

    found: dict[str, StoredTensor] = {}
    for path in files:
        if not path.is_file():
            continue
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118
                    part = file.get_slice(key)
                    found[key] = StoredTensor(part.get_dtype(), tuple(part.get_shape()))
        except SafetensorError as error:
            raise DamagedFileError(f"{path} is not a safetensors file: {one_line(error)}") from error
    return found


def load_weights(load: Callable[..., Any], place: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
    """Call a model's ``from_pretrained`` by ``load_without_foreign_code``, within the sizes and with the values of its file.

    Args:
        load: returns the model, or the model and information about its loading.
        place: a folder or a hub id; only a folder's headers are looked at.

    Raises:
        OSError: a file is missing.
        ValueError: the files are wrong or need code of their own, the configuration describes far more weights than are
            stored, or stored values are not of floating point or not finite; the message names the keys.
    """
    folder = Path(place) / (kwargs.get("subfolder") or "")
    stored = stored_tensors(folder, kwargs.get("variant")) if folder.is_dir() else {}
    with weights_at_most(stored, place):
        loaded = load_without_foreign_code(load, place, *args, **kwargs)
    check_values((loaded[0] if isinstance(loaded, tuple) else loaded).state_dict(), place, stored)
    return loaded


@contextmanager
def weights_at_most(stored: Mapping[str, StoredTensor], place: str | os.PathLike[str]) -> Iterator[None]:
    """Stop the construction of a model, before it is given memory, once it has far more weights than its file holds.

    transformers builds a model on the meta device before it reads a file: what is registered there by this thread is counted.

    Args:
        stored: the file's tensors; nothing is checked without any.
        place: named in the message.

    Raises:
        ValueError: twice the file's weights, and a little more, are exceeded.
    """
    from torch.nn.modules.module import (
        register_module_buffer_registration_hook,
        register_module_parameter_registration_hook,
    )

    tensors, values = len(stored), sum(each.values for each in stored.values())
    counter, outer = [0, 0], getattr(_innermost, "counter", None)

    def count(module: Any, name: str, tensor: Tensor | None) -> None:
        if tensor is None or not tensor.is_meta or getattr(_innermost, "counter", None) is not counter:
            return
        counter[0] += 1
        counter[1] += tensor.numel()
        if counter[0] > 2 * tensors + SLACK_TENSORS or counter[1] > 2 * values + SLACK_VALUES:
            raise ValueError(
                f"the weights at {place} do not match the model: its configuration describes more than twice the {values} "
                f"numbers in {tensors} tensors that are stored"
            )

    if not stored:
        yield
        return
    hooks = [
        register(count)
        for register in (register_module_parameter_registration_hook, register_module_buffer_registration_hook)
    ]
    _innermost.counter = counter
    try:
        yield
    finally:
        _innermost.counter = outer
        for hook in hooks:
            hook.remove()


def check_values(
    state: Mapping[str, Tensor],
    place: str | os.PathLike[str],
    stored: Mapping[str, StoredTensor] | None = None,
    *,
    every_one: bool = False,
) -> None:
    """Reject weights that are not numbers.

    Args:
        state: the loaded tensors by key.
        place: where they come from.
        stored: what the file holds, if ``state`` is that of a model; a part of a larger one may have the end of a stored key.
        every_one: all tensors must be of floating point, but for the counters of batch normalisation.

    Raises:
        ValueError: a tensor is not of floating point where that is expected, or not finite; the message names the keys.
    """
    problems = wrong_values(state, stored or {})
    if every_one:
        others = (key for key, tensor in state.items() if not tensor.is_floating_point())
        problems["keys that are not of floating point"] = sorted(
            key for key in others if not key.endswith("num_batches_tracked")
        )
    if any(problems.values()):
        raise ValueError(f"the weights at {place} do not match the model: {list_keys(problems)}")


def wrong_values(state: Mapping[str, Tensor], stored: Mapping[str, StoredTensor]) -> dict[str, list[str]]:
    """Keys of tensors that are not numbers, by what is wrong with them."""
    others = {key for key, tensor in state.items() if tensor.is_complex()}
    for name in (key for key, tensor in stored.items() if not tensor.is_floating_point):
        alike = [key for key in state if key == name or key.endswith(f".{name}") or name.endswith(f".{key}")]
        others |= {key for key in alike if state[key].is_floating_point()}
        if not alike and name.endswith((".weight", ".bias")):  # transformers has given it another name
            others.add(name)
    return {
        "keys that are not of floating point": sorted(others),
        "keys with values that are not finite": sorted(key for key in state if not _is_finite(state[key])),
    }


def list_keys(problems: Mapping[str, list[str]]) -> str:
    """Kinds of problems with the first keys of each, in one line."""
    return "; ".join(
        f"{kind}: {', '.join(keys[:8])}{' ...' if len(keys) > 8 else ''}" for kind, keys in problems.items() if keys
    )


def _shards(index: Path) -> list[str]:
    try:
        shards = sorted(map(os.fspath, set(json.loads(index.read_bytes())["weight_map"].values())))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"{index} must map keys to files, as weight_map ({one_line(error)})") from error
    for shard in shards:
        if "\0" in shard or os.path.isabs(shard) or os.path.normpath(shard).split(os.sep)[0] == os.pardir:
            shown = shard if shard.isprintable() else repr(shard)
            raise ValueError(f"{index} points outside its folder, at {shown}: all weights must lie beside it")
    return shards


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are; without a copy of the tensor."""
    if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
        return True
    return all(bool(end.isfinite()) for end in tensor.aminmax())
