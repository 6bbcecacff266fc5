"""Conversion of UniTok's released training checkpoint to a checkpoint of this package.

The released file is ``{'args', 'epoch', 'iter', 'trainer': {'unitok': tensors, ...}}``. Sizes are read from
the tensors, so that other sizes of the same layout can be converted; only the heads of the text tower and the image size come
from ``args``. Every tensor is either used, or left out for a reason that is checked and reported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semhitok.storage.atomic import atomic_directory
from semhitok.tokenizers.image_processing import TokenizerImageProcessor
from semhitok.tokenizers.unitok.checkpoint_file import listed, read_checkpoint, tensors_only
from semhitok.tokenizers.unitok.configuration import UniTokConfig
from semhitok.tokenizers.unitok.modeling import UniTokModel
from semhitok.tokenizers.unitok.processing import UniTokProcessor
from semhitok.tokenizers.unitok.released_names import take, unitok_source
from semhitok.tokenizers.unitok.text import clip_text_tokenizer, text_tower_config

ENTRIES = ("args", "epoch", "iter", "trainer")
TRAINER_ENTRIES = ("config", "unitok", "disc", "unitok_optim", "disc_optim")
HEAD_WIDTH = 64  # channels of an attention head in every ViTamin of UniTok
PLAIN = (str, int, float, bool, type(None), torch.dtype)


@dataclass(frozen=True)
class Converted:
    """Result of a conversion.

    Attributes:
        folder: folder of the converted checkpoint.
        config: its configuration.
        parameters: number of stored values.
        left_out: unused entries of the released file, with the reasons.
    """

    folder: Path
    config: UniTokConfig
    parameters: int
    left_out: dict[str, str]


def convert_unitok(checkpoint: Path, out: Path, *, dtype: torch.dtype = torch.float32) -> Converted:
    """Write the model, its configuration, image processor and text tokenizer to a new folder.

    Args:
        checkpoint: the released file. It is read without executing code, and args may hold only plain values: the published
            trainer saves them as a dictionary, so that not even ``argparse.Namespace`` needs to be allowed.
        out: a new or empty folder; written atomically.
        dtype: dtype of the stored weights; codebooks, projections and image head stay in float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the folder is not empty, the file is damaged, unsafe or of another model, or tensors are missing, unknown
            or of another shape; the message names them.
        WriteError: the disk is full.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"{out} is in use: convert to a new or empty folder")
    state, arguments, content = _unpack(checkpoint, read_checkpoint(checkpoint))
    left_out = _left_out(checkpoint, state, content)
    config = _configuration(checkpoint, state, arguments)
    config.provenance = {"converted": {"file": checkpoint.name, "epoch": content["epoch"], "iter": content["iter"]}}
    with torch.device("meta"):
        model = UniTokModel(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    source = partial(unitok_source, num_codebooks=config.num_codebooks)
    used = {name: tensor for name, tensor in state.items() if name not in left_out}
    model.load_state_dict(take(checkpoint, shapes, source, used), strict=True, assign=True)
    with atomic_directory(out) as unfinished:
        model.to(dtype).save_pretrained(unfinished)  # pyright: ignore[reportArgumentType]
        _processor(config).save_pretrained(unfinished)
    return Converted(out, config, sum(shape.numel() for shape in shapes.values()), left_out)


def _unpack(path: Path, content: Any) -> tuple[dict[str, Tensor], Mapping[str, Any], Mapping[str, Any]]:
    """The tensors, the settings, and the whole content."""
    if not isinstance(content, Mapping) or not isinstance(content.get("trainer"), Mapping):
        found = (
            f"found {listed(map(str, content))}" if isinstance(content, Mapping) and content else "found none of them"
        )
        raise ValueError(f"{path} is not a training checkpoint of UniTok: expected {', '.join(ENTRIES)}, {found}")
    trainer = content["trainer"]
    problems = [f"{name} is missing" for name in ENTRIES if name not in content]
    problems += [f"{name} is unknown" for name in content if name not in ENTRIES]
    problems += ["trainer.unitok is missing"] if "unitok" not in trainer else []
    problems += [f"trainer.{name} is unknown" for name in trainer if name not in TRAINER_ENTRIES]
    if problems:
        raise ValueError(f"{path} is not a training checkpoint of UniTok: {listed(problems)}")
    arguments = content["args"]
    if not isinstance(arguments, Mapping):
        raise ValueError(f"args in {path} is not a dictionary of settings but of type {type(arguments).__name__}")
    settings = {f"args.{name}": value for name, value in arguments.items()}
    settings |= {name: content[name] for name in ("epoch", "iter")}
    strange = [name for name, value in settings.items() if not _is_plain(value)]
    if strange:
        raise ValueError(f"{path} holds settings that are not plain values: {listed(strange)}")
    return tensors_only(trainer["unitok"], f"trainer.unitok in {path}"), arguments, content


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, PLAIN)


def _left_out(path: Path, state: Mapping[str, Tensor], content: Mapping[str, Any]) -> dict[str, str]:
    """Unused tensors and entries, with the reason.

    Raises:
        ValueError: a tensor that should be zero is not.
    """
    reasons = {}
    for name, tensor in state.items():
        if re.fullmatch(r"quantizer\.codebooks\.\d+\.vocab_usage", name):
            reasons[name] = "statistics of the training, not of the model"
        elif re.fullmatch(r"encoder\.pos_embed|(post_)?quant_proj\.attn\.zero_k_bias", name):
            if tensor.any():
                raise ValueError(f"{name} in {path} is not zero as in UniTok: this file is of another model")
            reasons[name] = "always zero"
    reasons |= {
        f"trainer.{name}": "of the training, not of the model" for name in content["trainer"] if name != "unitok"
    }
    return reasons


def _configuration(path: Path, state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> UniTokConfig:
    """The configuration with the sizes of the tensors."""

    def size(name: str, axis: int = 0) -> int:
        if name not in state or state[name].ndim <= axis:
            raise ValueError(f"{path} is not a checkpoint of UniTok: it has no {name}")
        return state[name].shape[axis]

    def count(pattern: str) -> int:
        return len({match[1] for match in map(re.compile(pattern).match, state) if match})

    text_tokenizer = clip_text_tokenizer()
    found, wanted = size("text_encoder.token_embedding.weight"), len(text_tokenizer)
    if found != wanted:
        raise ValueError(f"the text tower in {path} has {found} ids, but CLIP's text tokenizer has {wanted}")
    text_tokenizer.model_max_length = size("text_encoder.positional_embedding")
    backbone = "encoder.patch_embed.backbone."
    stages = [f"{backbone}stages.{number}" for number in range(2)]
    channels = size(f"{backbone}pool.proj.weight")
    if channels % HEAD_WIDTH:
        raise ValueError(f"{path} has {channels} channels, expected a multiple of {HEAD_WIDTH} as in ViTamin")
    linear = "post_quant_proj.weight" in state
    embed_dim = size("projection.weight")
    return UniTokConfig(
        image_size=_whole_number(path, arguments, "img_size"),
        stem_width=size(f"{backbone}stem.conv1.weight"),
        stage_widths=(*(size(f"{stage}.0.conv3_1x1.weight") for stage in stages), channels),
        stage_depths=[count(rf"{re.escape(stage)}\.(\d+)\.") for stage in stages],
        decoder_stage_depths=[count(rf"decoder\.{stage}\.(\d+)\.") for stage in ("up_conv2", "up_conv3")],
        depth=count(r"encoder\.blocks\.(\d+)\."),
        heads=channels // HEAD_WIDTH,
        width=size("post_quant_proj.weight" if linear else "post_quant_proj.proj.weight", 1),
        num_codebooks=count(r"quantizer\.codebooks\.(\d+)\."),
        codebook_size=size("quantizer.codebooks.0.codebook.weight"),
        projection="linear" if linear else "attention",
        embed_dim=embed_dim,
        text_config=text_tower_config(
            text_tokenizer,
            width=size("text_encoder.token_embedding.weight", 1),
            layers=count(r"text_encoder\.transformer\.resblocks\.(\d+)\."),
            heads=_whole_number(path, arguments, "text_heads"),
            embed_dim=embed_dim,
        ),
    )


def _whole_number(path: Path, arguments: Mapping[str, Any], name: str) -> int:
    value = arguments.get(name)
    if type(value) is not int or value < 1:
        raise ValueError(f"args.{name} in {path} must be a whole number of at least 1, got {value!r}")
    return value


def _processor(config: UniTokConfig) -> UniTokProcessor:
    assert config.text_config is not None
    text_tokenizer = clip_text_tokenizer()
    text_tokenizer.model_max_length = config.text_config.max_position_embeddings
    return UniTokProcessor(TokenizerImageProcessor(size=config.image_size), text_tokenizer)
