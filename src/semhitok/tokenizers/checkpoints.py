"""Loading checkpoints strictly: bundled names, the right class, every key accounted for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semhitok.storage.foreign_code import load_without_foreign_code

BUNDLED = Path(__file__).parent.parent / "checkpoints"


def builtin_names() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(folder.name for folder in BUNDLED.glob("*") if (folder / "config.json").exists())


def builtin_checkpoint(name: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The folder of a bundled checkpoint, or ``name`` itself if it is a folder or a hub id."""
    if isinstance(name, str) and name in builtin_names() and not Path(name).exists():
        return BUNDLED / name
    return name


def find_model_type(path: str | os.PathLike[str]) -> str | None:
    """The ``model_type`` in the configuration of a folder or a hub id, None where there is none.

    Raises:
        FileNotFoundError: neither, or a folder without configuration.
    """
    if not _is_folder(path):
        from transformers import PreTrainedConfig  # which folders do not need

        return PreTrainedConfig.get_config_dict(path)[0].get("model_type")
    return json.loads((Path(path) / "config.json").read_text()).get("model_type")


def stage_is_finished(run: Path, stage: str) -> bool:
    """Whether the folder of a stage's run holds the finished stage: its configuration says so, and its weights are there."""
    model = run / "model"
    config = model / "config.json"
    if not config.exists() or not any(model.glob("*.safetensors")):
        return False
    return stage in json.loads(config.read_text(encoding="utf-8")).get("stages", [])


def _is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether it is a checkpoint's folder, not a hub id; raises a ``FileNotFoundError`` for anything else."""
    folder = Path(path)
    if not folder.exists():
        # A hub id has exactly one slash and no file suffix; anything else is a mistyped path.
        if os.fspath(path).count("/") != 1 or os.fspath(path).startswith((".", "/", "~")):
            names = ", ".join(builtin_names()) or "none"
            raise FileNotFoundError(f"no checkpoint at {path}: expected a folder, a hub id or a bundled name ({names})")
        return False
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} is no checkpoint: it has no config.json")
    return True


def load_strictly(
    load: Callable[..., Any], place: str | os.PathLike[str], model_type: str, *args: Any, **kwargs: Any
) -> Any:
    """Load a folder, a hub id or a bundled name with the ``from_pretrained`` of transformers; every key is accounted for.

    Args:
        load: called with the folder or id and the other arguments.
        place: see ``builtin_checkpoint``.
        model_type: that the checkpoint must have.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it is of another type, or keys are missing, unexpected or of another shape; the message names them.
    """
    path = builtin_checkpoint(place)
    if _is_folder(path) and (found := find_model_type(path)) != model_type:
        raise ValueError(f"{path} holds a model of type {found!r}, expected {model_type!r}")
    want_info = kwargs.pop("output_loading_info", False)
    kwargs.setdefault("ignore_mismatched_sizes", True)  # reported below, in one sentence
    model, info = load_without_foreign_code(load, path, *args, output_loading_info=True, **kwargs)
    problems = {
        "missing keys": sorted(info["missing_keys"]),
        "unexpected keys": sorted(info["unexpected_keys"]),
        "keys of another shape": sorted(str(entry[0]) for entry in info["mismatched_keys"]),
    }
    wrong = [
        f"{kind}: {', '.join(keys[:8])}{' ...' if len(keys) > 8 else ''}" for kind, keys in problems.items() if keys
    ]
    if wrong:
        raise ValueError(f"the weights at {path} do not fit the model: {'; '.join(wrong)}")
    return (model, info) if want_info else model
