"""Checkpoints as others publish them, written from their definitions alone: UniTok's training checkpoint and open_clip's
ViTamin. Nothing here knows this package.

Sources: FoundationVision/UniTok (models/unitok.py, vitamin.py, vqvae.py, quant.py, main.py, trainer.py), timm
(models/vitamin.py, vision_transformer.py), open_clip (transformer.py: TextTransformer).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Shapes = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a released model; the defaults are UniTok-L."""

    stem: int = 160
    stages: tuple[int, int] = (160, 320)
    depths: tuple[int, int] = (2, 4)
    channels: int = 1024
    blocks: int = 31
    width: int = 64
    codebooks: int = 8
    entries: int = 4096
    embed: int = 768
    text_channels: int = 768
    text_layers: int = 12
    text_heads: int = 12
    text_vocabulary: int = 49_408
    text_context: int = 77


TINY = Sizes(
    stem=16,
    stages=(24, 32),
    depths=(2, 3),
    channels=128,
    blocks=2,
    width=32,
    codebooks=4,
    entries=16,
    embed=48,
    text_channels=32,
    text_layers=2,
    text_heads=4,
)


def unitok_shapes(sizes: Sizes) -> Shapes:
    """Names and shapes of ``checkpoint['trainer']['unitok']``."""
    yield "encoder.pos_embed", (1, 1, sizes.channels)
    yield from _trunk("encoder.", sizes)
    yield from _norm("encoder.norm", sizes.channels)
    yield from _projection("quant_proj.", sizes.channels, sizes.width)
    for number in range(sizes.codebooks):
        yield f"quantizer.codebooks.{number}.vocab_usage", (sizes.entries,)
        yield f"quantizer.codebooks.{number}.codebook.weight", (sizes.entries, sizes.width // sizes.codebooks)
    yield from _projection("post_quant_proj.", sizes.width, sizes.channels)
    yield from _decoder(sizes)
    yield from _text("text_encoder.", sizes)
    yield from _norm("fc_norm", sizes.channels)
    yield from _linear("projection", sizes.channels, sizes.embed)
    yield "logit_scale", ()


def vitamin_shapes(sizes: Sizes, positions: int = 196) -> Shapes:
    """Names and shapes of open_clip's ViTamin checkpoint (custom text tower)."""
    yield "visual.trunk.pos_embed", (1, positions, sizes.channels)
    yield from _trunk("visual.trunk.", sizes)
    yield from _norm("visual.trunk.fc_norm", sizes.channels)
    yield "visual.head.proj.weight", (sizes.embed, sizes.channels)
    yield from _text("text.", sizes)
    yield "logit_scale", ()


def random_state(shapes: Shapes, seed: int = 0) -> OrderedDict[str, Tensor]:
    """Random values; zero where the released model never trains a value, ones around which norms lie."""
    generator = torch.Generator().manual_seed(seed)
    state: OrderedDict[str, Tensor] = OrderedDict()
    for name, shape in shapes:
        values = torch.randn(shape, generator=generator)
        if name == "encoder.pos_embed" or name.endswith("zero_k_bias"):
            values = torch.zeros(shape)
        elif len(shape) > 1:
            values = values * values[0].numel() ** -0.5
        elif name.endswith("weight") and ("norm" in name or ".ln_" in name):
            values = 1 + 0.1 * values
        elif name == "logit_scale":
            values = torch.tensor(2.6593)
        else:
            values = 0.1 * values
        state[name] = values
    return state


def unitok_checkpoint(sizes: Sizes = TINY, seed: int = 0) -> dict[str, Any]:
    """A training checkpoint as UniTok's main.py saves it, without the discriminator and the optimizers."""
    return {
        "args": unitok_arguments(sizes),
        "epoch": 1,
        "iter": 0,
        "trainer": {"unitok": random_state(unitok_shapes(sizes), seed)},
    }


def unitok_arguments(sizes: Sizes) -> OrderedDict[str, Any]:
    """The settings in it that say what the model is, and some that do not."""
    return OrderedDict(
        model="vitamin_large",
        exp_name="unitok_large",
        img_size=256,
        vocab_size=sizes.entries * sizes.codebooks,
        vocab_width=sizes.width,
        num_codebooks=sizes.codebooks,
        quant_proj="attn",
        embed_dim=sizes.embed,
        num_query=0,
        drop_path=0.1,
        text_width=sizes.text_channels,
        text_heads=sizes.text_heads,
        text_layers=sizes.text_layers,
        text_vocab_size=sizes.text_vocabulary,
        text_context_length=sizes.text_context,
        dtype=torch.bfloat16,
        seed=None,
    )


def _linear(name: str, ins: int, outs: int) -> Shapes:
    yield f"{name}.weight", (outs, ins)
    yield f"{name}.bias", (outs,)


def _norm(name: str, channels: int) -> Shapes:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def _conv(name: str, ins: int, outs: int, kernel: int) -> Shapes:
    yield f"{name}.weight", (outs, ins, kernel, kernel)
    yield f"{name}.bias", (outs,)


def _trunk(prefix: str, sizes: Sizes) -> Shapes:
    backbone = f"{prefix}patch_embed.backbone."
    yield from _conv(f"{backbone}stem.conv1", 3, sizes.stem, 3)
    yield from _norm(f"{backbone}stem.norm1", sizes.stem)
    yield from _conv(f"{backbone}stem.conv2", sizes.stem, sizes.stem, 3)
    before = sizes.stem
    for stage, (channels, depth) in enumerate(zip(sizes.stages, sizes.depths, strict=True)):
        for block in range(depth):
            name = f"{backbone}stages.{stage}.{block}."
            if block == 0 and before != channels:
                yield from _conv(f"{name}shortcut.expand", before, channels, 1)
            yield from _norm(f"{name}pre_norm", before)
            yield from _conv(f"{name}conv1_1x1", before, 4 * channels, 1)
            yield from _conv(f"{name}conv2_kxk", 1, 4 * channels, 3)
            yield from _conv(f"{name}conv3_1x1", 4 * channels, channels, 1)
            before = channels
    yield from _conv(f"{backbone}pool.proj", before, sizes.channels, 3)
    yield from _norm(f"{backbone}pool.norm", before)
    yield from _blocks(f"{prefix}blocks.", sizes)


def _blocks(prefix: str, sizes: Sizes) -> Shapes:
    for number in range(sizes.blocks):
        name = f"{prefix}{number}."
        yield from _norm(f"{name}norm1", sizes.channels)
        yield from _linear(f"{name}attn.qkv", sizes.channels, 3 * sizes.channels)
        yield from _linear(f"{name}attn.proj", sizes.channels, sizes.channels)
        yield from _norm(f"{name}norm2", sizes.channels)
        yield from _geglu(f"{name}mlp.", sizes.channels)


def _geglu(prefix: str, channels: int) -> Shapes:
    yield from _norm(f"{prefix}norm", channels)
    yield from _linear(f"{prefix}w0", channels, 2 * channels)
    yield from _linear(f"{prefix}w1", channels, 2 * channels)
    yield from _linear(f"{prefix}w2", 2 * channels, channels)


def _projection(prefix: str, ins: int, outs: int) -> Shapes:
    inner = max(ins, outs)
    yield from _norm(f"{prefix}norm1", ins)
    yield f"{prefix}attn.q_bias", (inner,)
    yield f"{prefix}attn.v_bias", (inner,)
    yield f"{prefix}attn.zero_k_bias", (inner,)
    yield f"{prefix}attn.qkv.weight", (3 * inner, ins)
    yield from _linear(f"{prefix}attn.proj", outs, outs)
    yield from _linear(f"{prefix}proj", ins, outs)
    yield from _norm(f"{prefix}norm3", ins)
    yield from _norm(f"{prefix}norm2", outs)
    yield from _geglu(f"{prefix}mlp.", outs)


def _decoder(sizes: Sizes) -> Shapes:
    yield from _blocks("decoder.blocks.", sizes)
    yield from _norm("decoder.norm", sizes.channels)
    narrow, wide = sizes.stages
    yield from _conv("decoder.up_conv1.conv", sizes.channels, wide, 3)
    for name, before, channels, depth in (("up_conv2", wide, wide, 4), ("up_conv3", wide, narrow, 2)):
        for block in range(depth):
            prefix, ins = f"decoder.{name}.{block}.", before if block == 0 else channels
            if block == 0:
                yield from _conv(f"{prefix}shortcut.conv", ins, channels, 3)
            yield from _norm(f"{prefix}pre_norm", ins)
            yield from _conv(f"{prefix}conv1_1x1", ins, 4 * channels, 1)
            if block == 0:
                yield from _conv(f"{prefix}up.conv", 4 * channels, 4 * channels, 3)
            yield from _conv(f"{prefix}conv2_kxk", 1, 4 * channels, 3)
            yield from _conv(f"{prefix}conv3_1x1", 4 * channels, channels, 1)
    yield from _conv("decoder.up_conv4.conv1.conv", narrow, narrow, 3)
    yield from _norm("decoder.up_conv4.norm1", narrow)
    yield from _conv("decoder.up_conv4.conv2", narrow, 3, 3)


def _text(prefix: str, sizes: Sizes) -> Shapes:
    channels = sizes.text_channels
    yield f"{prefix}positional_embedding", (sizes.text_context, channels)
    yield f"{prefix}text_projection", (channels, sizes.embed)
    yield f"{prefix}token_embedding.weight", (sizes.text_vocabulary, channels)
    for number in range(sizes.text_layers):
        name = f"{prefix}transformer.resblocks.{number}."
        yield from _norm(f"{name}ln_1", channels)
        yield f"{name}attn.in_proj_weight", (3 * channels, channels)
        yield f"{name}attn.in_proj_bias", (3 * channels,)
        yield from _linear(f"{name}attn.out_proj", channels, channels)
        yield from _norm(f"{name}ln_2", channels)
        yield from _linear(f"{name}mlp.c_fc", channels, 4 * channels)
        yield from _linear(f"{name}mlp.c_proj", 4 * channels, channels)
    yield from _norm(f"{prefix}ln_final", channels)
