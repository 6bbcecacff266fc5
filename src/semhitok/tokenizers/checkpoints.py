"""Strict loading of checkpoints by folder, hub id or bundled name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semhitok.storage.atomic import restore
from semhitok.storage.configuration import check_configuration, read_configuration
from semhitok.storage.foreign_code import load_without_foreign_code
from semhitok.storage.weights import list_keys, stored_tensors, weights_at_most, wrong_values

BUNDLED = Path(__file__).parent.parent / "checkpoints"
HUB_OPTIONS = (
    *("subfolder", "revision", "token", "cache_dir", "local_files_only", "force_download", "proxies", "user_agent"),
)
"""Arguments of ``from_pretrained`` that say where the files of a checkpoint are."""


def builtin_names() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(folder.name for folder in BUNDLED.glob("*") if (folder / "config.json").exists())


def builtin_checkpoint(name: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The folder of a bundled checkpoint, or ``name`` itself if it is a folder or a hub id.

    A folder of that name takes precedence only if it is a checkpoint; any other file or folder may be called ``nano``, too.
    """
    if isinstance(name, str) and name in builtin_names() and not (Path(name) / "config.json").is_file():
        return bundled_folder(name)
    return name


def bundled_folder(name: str) -> Path:
    """The folder of a bundled checkpoint, whatever else is called so."""
    return BUNDLED / name


def hub_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Those arguments of a ``from_pretrained`` that say where the files are, needed for each of them."""
    return {name: value for name, value in kwargs.items() if name in HUB_OPTIONS}


def find_model_type(path: str | os.PathLike[str], **options: Any) -> str | None:
    """The ``model_type`` in the configuration of a folder or a hub id, or None if it has none.

    Args:
        path: a folder or a hub id.
        options: see ``hub_options``.

    Raises:
        FileNotFoundError: it is neither, or the folder has no configuration.
        DamagedFileError: the configuration cannot be read.
        ValueError: it is none, see ``storage.configuration.check_configuration``.
    """
    subfolder = options.get("subfolder") or ""
    if _is_folder(path, subfolder):
        fields = read_configuration(Path(path) / subfolder / "config.json")
    else:
        from transformers import PreTrainedConfig  # not needed for folders

        fields = PreTrainedConfig.get_config_dict(path, **options)[0]
        check_configuration(fields, f"the configuration of {path}")
    found = fields.get("model_type")
    return found if found is None or isinstance(found, str) else repr(found)


def stage_is_finished(run: Path, stage: str) -> bool:
    """Whether a stage's run is finished: its model's configuration lists the stage, and the weights exist."""
    model = run / "model"
    restore(model)
    if not _has_weights(model):
        return False
    config = _read_json(model / "config.json")
    stages = config.get("stages") if isinstance(config, dict) else None
    return isinstance(stages, list) and stage in stages


def _has_weights(model: Path) -> bool:
    """Whether the folder of a model has all of its weights, in one file or in the several that an index names."""
    names: Any = ["model.safetensors"]
    if (model / "model.safetensors.index.json").exists():
        index = _read_json(model / "model.safetensors.index.json")
        shards = index.get("weight_map") if isinstance(index, dict) else None
        names = list(shards.values()) if isinstance(shards, dict) else []
    return bool(names) and all(_is_whole(model / str(name)) for name in set(names))


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file has the length that its header says."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 2 <= length <= size - 8:
                return False
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return size == 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return False


def _read_json(path: Path) -> Any:
    """A JSON file, None where it is missing or cannot be read: what is unreadable is not done."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _is_folder(path: str | os.PathLike[str], subfolder: str = "") -> bool:
    """Whether it is a checkpoint's folder rather than a hub id; raises ``FileNotFoundError`` for anything else."""
    folder = Path(path)
    if not folder.exists():
        # A hub id has exactly one slash and no file suffix; anything else is a mistyped path.
        if os.fspath(path).count("/") != 1 or os.fspath(path).startswith((".", "/", "~")):
            names = ", ".join(builtin_names()) or "none"
            raise FileNotFoundError(f"no checkpoint at {path}: expected a folder, a hub id or a bundled name ({names})")
        return False
    if not (folder / subfolder / "config.json").exists():
        raise FileNotFoundError(f"{folder / subfolder} is not a checkpoint: it has no config.json")
    return True


def load_strictly(
    load: Callable[..., Any],
    place: str | os.PathLike[str],
    model_type: str,
    *args: Any,
    quantizable: bool = False,
    **kwargs: Any,
) -> Any:
    """Load a folder, a hub id or a bundled name with the ``from_pretrained`` of transformers, strictly.

    Args:
        load: called with the folder or id and the remaining arguments, which are those of transformers.
        place: see ``builtin_checkpoint``.
        model_type: the ``model_type`` that the checkpoint must have.
        quantizable: whether ``quantization_config`` is accepted.

    Raises:
        FileNotFoundError: there is no checkpoint.
        DamagedFileError: a file cannot be read.
        ValueError: the checkpoint has another type or would be quantized, its index points outside its folder, a field of its
            configuration is wrong or describes far more weights than are stored, or keys are missing, unexpected, of another
            shape, not of floating point where that is expected, or not finite; the message names them.
    """
    if kwargs.get("quantization_config") is not None and not quantizable:
        raise ValueError(
            "an image tokenizer is not loaded in 8 or 4 bits, which would change its ids: choose its dtype"
        )
    path, stored, subfolder = builtin_checkpoint(place), {}, kwargs.get("subfolder") or ""
    if _is_folder(path, subfolder):
        folder = Path(path) / subfolder
        if (found := find_model_type(folder)) != model_type:
            raise ValueError(f"{folder} holds a model of type {found!r}, expected {model_type!r}")
        if (folder / "adapter_config.json").exists():  # transformers would load the model that it names
            raise ValueError(
                f"{folder} holds a PEFT adapter of another model, a whole model is needed: merge them first"
            )
        stored = stored_tensors(folder, kwargs.get("variant"))
    want_info = kwargs.pop("output_loading_info", False)
    kwargs.setdefault("ignore_mismatched_sizes", True)  # reported below, in one sentence
    with weights_at_most(stored, path):
        model, info = load_without_foreign_code(load, path, *args, output_loading_info=True, **kwargs)
    problems = {
        "missing keys": sorted(info["missing_keys"]),
        "unexpected keys": sorted(info["unexpected_keys"]),
        "keys of another shape": sorted(str(entry[0]) for entry in info["mismatched_keys"]),
    }
    if not any(problems.values()):
        problems = wrong_values(model.state_dict(), stored)
    if any(problems.values()):
        raise ValueError(f"the weights at {path} do not match the model: {list_keys(problems)}")
    return (model, info) if want_info else model
