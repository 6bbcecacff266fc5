"""Mapping from our tensors to released ones, with UniTok's names (those of timm and open_clip).

The tables map our names to theirs, so that the model determines what a file must contain, and errors about missing or unknown
tensors use the file's own names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from semhitok.storage.weights import check_values
from semhitok.tokenizers.unitok.checkpoint_file import listed

FEED_FORWARD = {"norm": "norm", "gate": "w0", "up": "w1", "out": "w2"}
BLOCK = {
    "attention_norm": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "feed_forward_norm": "norm2",
    **{f"feed_forward.{ours}": f"mlp.{theirs}" for ours, theirs in FEED_FORWARD.items()},
}
BOTTLENECK = {
    "shortcut.expand": "shortcut.expand",
    "shortcut.conv": "shortcut.conv",
    "norm": "pre_norm",
    "expand": "conv1_1x1",
    "up.conv": "up.conv",
    "mix": "conv2_kxk",
    "project": "conv3_1x1",
}
ENCODER = {
    "stem.reduce": "patch_embed.backbone.stem.conv1",
    "stem.norm": "patch_embed.backbone.stem.norm1",
    "stem.refine": "patch_embed.backbone.stem.conv2",
    "grid_norm": "patch_embed.backbone.pool.norm",
    "to_grid": "patch_embed.backbone.pool.proj",
    "norm": "norm",
}
ENCODER_STAGES = {"stage1": "patch_embed.backbone.stages.0", "stage2": "patch_embed.backbone.stages.1"}
DECODER = {
    "norm": "norm",
    "from_grid.conv": "up_conv1.conv",
    "stem.enlarge.conv": "up_conv4.conv1.conv",
    "stem.norm": "up_conv4.norm1",
    "stem.draw": "up_conv4.conv2",
}
DECODER_STAGES = {"stage1": "up_conv2", "stage2": "up_conv3"}
PROJECTION = {
    "linear_norm": "norm3",
    "linear": "proj",
    "attention_norm": "norm1",
    "attention.out": "attn.proj",
    "feed_forward_norm": "norm2",
    **{f"feed_forward.{ours}": f"mlp.{theirs}" for ours, theirs in FEED_FORWARD.items()},
}
IMAGE_HEAD = {"norm": "fc_norm", "project": "projection"}
TEXT_LAYER = {
    "layer_norm1": "ln_1",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


@dataclass(frozen=True)
class Source:
    """The source of one of our tensors.

    Attributes:
        names: names of the released tensors.
        build: builds our tensor from them.
    """

    names: tuple[str, ...]
    build: Callable[..., Tensor] = lambda tensor: tensor


def unitok_source(name: str, num_codebooks: int) -> Source:
    """The source of one of our tensors in UniTok's released state."""
    part, _, rest = name.partition(".")
    match part:
        case "encoder":
            return Source((f"encoder.{_tower(rest, ENCODER, ENCODER_STAGES)}",))
        case "decoder":
            return Source((f"decoder.{_tower(rest, DECODER, DECODER_STAGES)}",))
        case "project_down":
            return _projection("quant_proj.", rest.removeprefix("map."))
        case "project_up":
            return _projection("post_quant_proj.", rest.removeprefix("map."))
        case "quantizer":
            return Source(
                tuple(f"quantizer.codebooks.{n}.codebook.weight" for n in range(num_codebooks)),
                lambda *tensors: torch.stack(tensors),
            )
        case "image_head":
            return Source((_renamed(rest, IMAGE_HEAD),))
        case "text_model":
            return _text("text_encoder.", rest)
    return Source((name,))


def vitamin_source(name: str) -> Source | None:
    """The source of one of our tensors in open_clip's ViTamin; None if it does not exist there."""
    part, _, rest = name.partition(".")
    if part == "encoder" and not rest.startswith("norm."):
        return Source((f"visual.trunk.{_tower(rest, ENCODER, ENCODER_STAGES)}",))
    return _text("text.", rest) if part == "text_model" else None


def _renamed(name: str, table: Mapping[str, str]) -> str:
    """``layer.weight`` with the layer's name from the table."""
    layer, _, kind = name.rpartition(".")
    return f"{table[layer]}.{kind}"


def _tower(name: str, table: Mapping[str, str], stages: Mapping[str, str]) -> str:
    part, number, rest = (*name.split(".", 2), "", "")[:3]
    if part == "blocks":
        return f"blocks.{number}.{_renamed(rest, BLOCK)}"
    return f"{stages[part]}.{number}.{_renamed(rest, BOTTLENECK)}" if part in stages else _renamed(name, table)


def _projection(prefix: str, name: str) -> Source:
    """The source of a projection's tensor; released queries, keys and values are one matrix, keys have no bias."""
    if name in ("weight", "bias"):
        return Source((f"{prefix}{name}",))  # a linear projection
    match re.fullmatch(r"attention\.(query|key|value)\.(weight|bias)", name):
        case None:
            return Source((f"{prefix}{_renamed(name, PROJECTION)}",))
        case found if found[2] == "bias":
            return Source((f"{prefix}attn.{found[1][0]}_bias",))
        case found:
            return Source((f"{prefix}attn.qkv.weight",), _third(("query", "key", "value").index(found[1])))


def _text(prefix: str, name: str) -> Source:
    """The source of a text tower's tensor: open_clip joins queries, keys and values and transposes the projection."""
    name = name.removeprefix("text_model.")
    if name == "text_projection.weight":
        return Source((f"{prefix}text_projection",), lambda tensor: tensor.T.contiguous())
    if name.startswith("embeddings."):
        token = "token_embedding" in name
        return Source((f"{prefix}{'token_embedding.weight' if token else 'positional_embedding'}",))
    if name.startswith("final_layer_norm."):
        return Source((name.replace("final_layer_norm", f"{prefix}ln_final"),))
    number, rest = name.removeprefix("encoder.layers.").split(".", 1)
    layer = f"{prefix}transformer.resblocks.{number}."
    found = re.fullmatch(r"self_attn\.([qkv])_proj\.(weight|bias)", rest)
    if found:
        return Source((f"{layer}attn.in_proj_{found[2]}",), _third("qkv".index(found[1])))
    return Source((f"{layer}{_renamed(rest, TEXT_LAYER)}",))


def _third(index: int) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.tensor_split(3)[index].clone()  # a file does not hold views of one tensor


def take(
    path: Path, shapes: Mapping[str, torch.Size], source: Callable[[str], Source | None], found: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Build our tensors, fp32, from those of a file.

    Args:
        path: the file, for messages.
        shapes: the required shapes by our names.
        source: maps our names to their sources.
        found: the tensors of the file, all of which must be used.

    Raises:
        ValueError: tensors are missing, unknown, of another shape, not of floating point or not finite; the message uses the
            file's names.
    """
    sources = {name: _known(source(name), name) for name in shapes}
    expected = dict.fromkeys(name for entry in sources.values() for name in entry.names)
    problems = {
        "missing": [name for name in expected if name not in found],
        "unknown": [name for name in found if name not in expected],
    }
    problems["of another shape"] = [
        f"{listed(sources[name].names)} {tuple(found[sources[name].names[0]].shape)}"
        for name, shape in shapes.items()
        if all(entry in found for entry in sources[name].names) and not _fits(sources[name], found, shape)
    ]
    said = [f"{kind}: {listed(dict.fromkeys(names))}" for kind, names in problems.items() if names]
    if said:
        raise ValueError(f"the tensors in {path} do not match: {'; '.join(said)}")
    check_values({name: found[name] for name in expected}, path, every_one=True)
    return {
        name: entry.build(*(found[released].float() for released in entry.names)) for name, entry in sources.items()
    }


def _fits(source: Source, found: Mapping[str, Tensor], shape: torch.Size) -> bool:
    try:
        return source.build(*(found[name].to("meta") for name in source.names)).shape == shape
    except RuntimeError:  # shapes that cannot be stacked or cut
        return False


def _known(source: Source | None, name: str) -> Source:
    assert source is not None, f"no released name is known for {name}"
    return source
