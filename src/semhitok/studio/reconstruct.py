"""The tab *Reconstruct*: what tokenizers keep of a photograph, what each of the two codes keeps, what each stage adds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from semhitok.data.images import load_image
from semhitok.data.transforms import to_pil
from semhitok.inference.image_codes import read_codes
from semhitok.inference.loading import stage_models
from semhitok.inference.reconstruction import Reconstruction, reconstruct_images
from semhitok.metrics.rate import tokenizer_bits
from semhitok.metrics.reconstruction import psnr_per_image, ssim_per_image
from semhitok.studio.html import empty, figure, picture, row, section, slider
from semhitok.studio.workspace import Workspace
from semhitok.types import FitOrTile

FITS: dict[str, FitOrTile] = {"Crop the centre": "crop", "Squeeze": "resize", "Tiles, up to 1,024 px": "tile"}
"""How photographs are made square, by what the page calls it."""

TILED_SIDE = 1024  # longer side in pixels of photographs that are tiled, so that there are at most some hundred tiles


def show(workspace: Workspace, photograph: str | None, tokenizers: Sequence[str], fit: FitOrTile) -> str:
    """The tab's result as HTML.

    Args:
        workspace: loads the tokenizers.
        photograph: path of an image; None shows a hint.
        tokenizers: names, in the order of the cards.
        fit: how the photograph is made square, or ``tile``.

    Raises:
        ValueError: no tokenizer, an unreadable image, or a tokenizer that cannot be loaded.
    """
    if photograph is None:
        return empty("Drop a photograph, or choose one of the examples.")
    if not tokenizers:
        raise ValueError("choose at least one tokenizer")
    image = load_image(photograph, name="the photograph")
    if fit == "tile":
        image.thumbnail((TILED_SIDE, TILED_SIDE))
    parts = [row([_card(workspace, name, image, fit) for name in tokenizers], "wide")]
    if fit != "tile":
        parts += [_two_codes(workspace, name, image, fit) for name in tokenizers]
    parts += [_stages(workspace, name, image, fit) for name in tokenizers]
    return "".join(parts)


def _card(workspace: Workspace, name: str, image: Image.Image, fit: FitOrTile) -> str:
    tokenizer = workspace.tokenizer(name)
    restored = _reconstruction(workspace, name, image, fit)
    squares = len(restored.ids)
    bits = squares * tokenizer_bits(tokenizer.num_tokens * tokenizer.codes_per_token, tokenizer.vocab_size)
    side = restored.tile_size
    codes = f" x {tokenizer.codes_per_token} codes" if tokenizer.codes_per_token > 1 else ""
    facts = [
        ("PSNR", _psnr(restored)),
        ("SSIM", f"{float(ssim_per_image(restored.originals, restored.copies).mean()):.3f}"),
        ("size", f"{bits / 8:,.0f} bytes ({bits:,.0f} bits)"),
        ("tokens", f"{squares * tokenizer.num_tokens:,}{codes}"),
        ("vocabulary", f"{tokenizer.vocab_size:,}"),
        ("seen as", f"{side} x {side} px" if restored.layout is None else f"{squares} tiles of {side} x {side} px"),
    ]
    if restored.layout is None:
        original, copy = to_pil(restored.originals[0]), restored.image()
    else:
        copy = restored.image()
        original = image.resize(copy.size)
    return figure(slider(original, copy, short(name)), short(name), facts)


def _two_codes(workspace: Workspace, name: str, image: Image.Image, fit: FitOrTile) -> str:
    """What the semantic codes alone give back beside both codes; nothing for tokenizers without semantic codes."""
    tokenizer = workspace.tokenizer(name)
    if tokenizer.semantic_codebook_size is None or fit == "tile":
        return ""
    codes = read_codes(tokenizer, image, fit=fit)
    original = to_pil(_reconstruction(workspace, name, image, fit).originals[0])
    alone = codes.semantic_picture()
    bits = [tokenizer_bits(len(codes.ids_N), size) for size in (tokenizer.semantic_codebook_size, tokenizer.vocab_size)]
    cards = [
        figure(picture(original, "original"), "original", [("seen as", f"{original.width} x {original.height} px")]),
        figure(picture(alone, "semantic codes alone"), "semantic codes alone", [("bits", f"{bits[0]:,.0f}")]),
        figure(picture(codes.picture(), "both codes"), "semantic and pixel codes", [("bits", f"{bits[1]:,.0f}")]),
    ]
    note = (
        "The semantic code k says what a patch shows, the pixel code j what this patch looks like. Alone: the mean over all "
        "pixel codes of the pictures in which every patch has the same one."
    )
    return section(f"What each code of {short(name)} keeps", note, row(cards))


def _stages(workspace: Workspace, name: str, image: Image.Image, fit: FitOrTile) -> str:
    models = stage_models(Path(name).expanduser())
    if len(models) < 2:
        return ""
    cards = []
    for stage, place in models.items():
        restored = _reconstruction(workspace, str(place), image, fit)
        facts = [("PSNR", _psnr(restored))]
        cards.append(figure(picture(restored.image(), f"after stage {stage}"), stage, facts))
    return section(f"Training stages of {short(name)}", "What the model of each finished stage gives back.", row(cards))


def _reconstruction(workspace: Workspace, name: str, image: Image.Image, fit: FitOrTile) -> Reconstruction:
    return next(reconstruct_images(workspace.tokenizer(name), [image], fit=fit))


def _psnr(restored: Reconstruction) -> str:
    return f"{float(psnr_per_image(restored.originals, restored.copies).mean()):.2f} dB"


def short(name: str) -> str:
    """The last part of a path, or the name."""
    return Path(name).name or name
