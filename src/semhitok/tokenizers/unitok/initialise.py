"""Initialisation of UniTok from a CLIP model with the same encoder, open_clip's ViTamin (arXiv 2404.02132).

As in the paper, UniTok uses the image trunk and the text tower of such a checkpoint. The rest does not fit: UniTok's encoder
has no position embedding and normalises every token instead of the pooled one, its image embedding comes after the
quantizer, and the temperature of the contrastive loss is reset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semhitok.tokenizers.unitok.checkpoint_file import read_checkpoint, tensors_only
from semhitok.tokenizers.unitok.modeling import UniTokModel
from semhitok.tokenizers.unitok.released_names import take, vitamin_source

LEFT_OUT = {
    "visual.trunk.pos_embed": "the encoder has no position embedding",
    "visual.trunk.fc_norm.weight": "the encoder norms every token, not the pooled one",
    "visual.trunk.fc_norm.bias": "the encoder norms every token, not the pooled one",
    "visual.head.proj.weight": "the image embedding is taken behind the quantizer",
    "logit_scale": "the temperature starts anew",
}
TOP_LEVEL_TEXT = ("positional_embedding", "text_projection", "token_embedding.", "transformer.", "ln_final.")


@dataclass(frozen=True)
class Initialised:
    """Result of an initialisation.

    Attributes:
        loaded: names of the model's tensors that came from the file.
        random: names of the model's other tensors, which keep their random initialisation.
        left_out: unused tensors of the file, with the reasons.
    """

    loaded: tuple[str, ...]
    random: tuple[str, ...]
    left_out: dict[str, str]


@torch.no_grad()
def load_clip_weights(model: UniTokModel, path: str | Path) -> Initialised:
    """Copy the trunk and the text tower of an open_clip ViTamin checkpoint into the model's encoder and text tower.

    Args:
        model: a model with its encoder, on any device and in any dtype; without a text tower, the file's is not used.
        path: safetensors, or a file written by ``torch.save`` with only the weights or with open_clip's training state.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the model has no encoder, or the file is damaged, unsafe, of another model, or its tensors are missing,
            unknown or of another shape; the message names them, and the model is unchanged.
    """
    if not model.config.encoder:
        raise ValueError("the model was built without its encoder side (encoder=False): there is nothing to load into")
    path = Path(path)
    state = _clip_state(path, read_checkpoint(path))
    left_out = {name: reason for name, reason in LEFT_OUT.items() if name in state}
    if model.config.text_config is None:
        left_out |= {name: "the model has no text tower" for name in state if name.startswith("text.")}
    tensors = model.state_dict()
    wanted = {name: tensor.shape for name, tensor in tensors.items() if vitamin_source(name) is not None}
    found = {name: tensor for name, tensor in state.items() if name not in left_out}
    for name, values in take(path, wanted, vitamin_source, found).items():
        tensors[name].copy_(values)
    return Initialised(tuple(wanted), tuple(name for name in tensors if name not in wanted), left_out)


def _clip_state(path: Path, content: Any) -> dict[str, Tensor]:
    """The weights with open_clip's names in ViTamin's layout, in which the text tower has the prefix ``text.``."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]  # open_clip's training state, which may have been saved under DDP
    state = {
        name.removeprefix("module."): value for name, value in tensors_only(content, f"the content of {path}").items()
    }
    if not any(name.startswith("visual.trunk.patch_embed.backbone.") for name in state):
        raise ValueError(f"{path} is not a checkpoint of ViTamin: it has no visual.trunk.patch_embed.backbone tensors")
    return {f"text.{name}" if name.startswith(TOP_LEVEL_TEXT) else name: value for name, value in state.items()}
