"""The models that SemHiTok's stages start from: the teacher, and a model with a larger decoder."""

from __future__ import annotations

from typing import Protocol

import torch

from semhitok.recipes.recipe import BUILT_IN_TEACHER, EnhancedDecoder
from semhitok.teachers import Teacher
from semhitok.tokenizers import SemHiTokConfig, SemHiTokModel
from semhitok.tokenizers.semhitok.pixel import PixelDecoder
from semhitok.training.state import derive_seed


class NamesTeacher(Protocol):
    """A recipe that names a teacher: see ``Recipe``."""

    @property
    def teacher(self) -> str: ...
    @property
    def teacher_image_size(self) -> int: ...
    @property
    def teacher_layer(self) -> int: ...


def load_teacher(recipe: NamesTeacher) -> Teacher:
    """The recipe's frozen teacher."""
    if recipe.teacher == BUILT_IN_TEACHER:
        return Teacher.efficientnet_lite0(image_size=recipe.teacher_image_size)
    return Teacher.from_pretrained(recipe.teacher, image_size=recipe.teacher_image_size, layer=recipe.teacher_layer)


def enhance_decoder(model: SemHiTokModel, size: EnhancedDecoder, seed: int) -> SemHiTokModel:
    """The model with a larger decoder (stage 3) and everything else unchanged.

    A grown decoder initially reproduces the old one exactly: its blocks are copied, and the new blocks after them add
    zero to the residual stream.

    Raises:
        ValueError: a decoder is asked to grow in width or to shrink.
    """
    old = model.config
    if size.grow and (size.width, size.heads) != (old.decoder_width, old.decoder_heads):
        raise ValueError(
            f"a decoder grows in depth only: width {old.decoder_width} and {old.decoder_heads} heads cannot become "
            f"{size.width} and {size.heads}; set grow to false to start it from random weights"
        )
    if size.grow and size.layers < old.decoder_layers:
        raise ValueError(
            f"the enhanced decoder has {size.layers} layers, fewer than the {old.decoder_layers} it grows from"
        )
    sizes = {"decoder_layers": size.layers, "decoder_width": size.width, "decoder_heads": size.heads}
    config = SemHiTokConfig.from_dict(old.to_dict() | sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "enhanced decoder"))
        enhanced = SemHiTokModel(config)
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("pixel_decoder.")}
    if size.grow:
        kept |= {f"pixel_decoder.{name}": tensor for name, tensor in model.pixel_decoder.state_dict().items()}
        _silence(enhanced.pixel_decoder, after=old.decoder_layers)
    enhanced.load_state_dict(enhanced.state_dict() | kept)
    return enhanced


@torch.no_grad()
def _silence(decoder: PixelDecoder, after: int) -> None:
    """Make all blocks after the first ``after`` add zero to the residual stream."""
    for layer in decoder.transformer.residual_outputs()[2 * after :]:
        layer.weight.zero_()
        layer.bias.zero_()
