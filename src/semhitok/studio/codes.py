"""The tab *Codes*: the token of one patch, other patches of its code, its sub-codebook, changed tokens, mixed images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from semhitok.data.images import load_image
from semhitok.data.transforms import fit_image
from semhitok.inference.code_patches import Patch
from semhitok.inference.image_codes import ImageCodes, read_codes
from semhitok.studio.html import choices, empty, figure, patch_grid, picture, row
from semhitok.studio.reconstruct import short
from semhitok.studio.workspace import Workspace
from semhitok.visualization.code_rows import code_rows, cut_tile, tile_detail

PATCHES_SHOWN = 12  # other patches of the chosen code
CONTEXT = 1  # neighbouring patches shown on each side
SIDE = 512  # pixels of the photograph under the grid


@dataclass(frozen=True)
class Editing:
    """An image being looked at.

    Attributes:
        model: name of the tokenizer.
        square: the photograph as the tokenizer sees it, at a higher resolution.
        read: its codes as they were read.
        codes: its codes now.
        position: the chosen token.
    """

    model: str
    square: Image.Image
    read: ImageCodes
    codes: ImageCodes
    position: int

    @property
    def changed(self) -> list[int]:
        """Positions whose token differs from what was read."""
        return (self.codes.ids_N != self.read.ids_N).nonzero().flatten().tolist()


def open_image(workspace: Workspace, photograph: str, model: str) -> Editing:
    """Read the codes of a photograph; of the patches whose semantic code the image has most, one near the middle is chosen.

    Raises:
        ValueError: an unreadable image, or a tokenizer that has no semantic codes or cannot be loaded.
    """
    image = load_image(photograph, name="the photograph")
    codes = read_codes(workspace.tokenizer(model), image)
    return Editing(model, fit_image(image, SIDE, SIDE), codes, codes, _first_choice(codes))


def change_token(editing: Editing, semantic_id: float | None, pixel_id: float | None) -> Editing:
    """Put another token at the chosen position.

    Raises:
        ValueError: a code is missing or out of range.
    """
    if semantic_id is None or pixel_id is None:
        raise ValueError("a token needs a semantic code and a pixel code")
    codes = editing.codes.with_token(editing.position, int(semantic_id), int(pixel_id))
    return replace(editing, codes=codes)


def original_grid(editing: Editing) -> str:
    """The photograph with a button on every patch."""
    semantic_ids = editing.codes.semantic_ids
    alike = (semantic_ids == semantic_ids[editing.position]).nonzero().flatten().tolist()
    names = [_name(editing, position) for position in range(len(semantic_ids))]
    return patch_grid(editing.square, editing.codes.grid, editing.position, alike, editing.changed, names)


def decoded(editing: Editing) -> str:
    """What the codes decode to now."""
    changed = len(editing.changed)
    note = f"{changed} token{'s' if changed > 1 else ''} changed" if changed else "as it was read"
    return figure(
        picture(editing.codes.picture(), f"decoded from its tokens, {note}"),
        "decoded from its tokens",
        [("tokens", note)],
    )


def token_facts(editing: Editing) -> str:
    """The chosen token in words."""
    k, j = editing.codes.at(editing.position)
    layout = editing.codes.layout
    semantic_ids = editing.codes.semantic_ids
    others = int((semantic_ids == k).sum()) - 1
    facts = [
        ("semantic code k", f"{k:,} of {len(layout.sizes):,}"),
        ("pixel code j", f"{j} of {layout.sizes[k]}"),
        ("token id", f"{int(editing.codes.ids_N[editing.position]):,} of {layout.vocab_size:,}"),
        ("in this image", f"{others or 'no'} other patch{'es' if others > 1 else ''} with this code"),
    ]
    row_number, column = divmod(editing.position, editing.codes.grid[1])
    tile = _surroundings(editing.square, editing)
    title = f"Row {row_number + 1}, column {column + 1}"
    return figure(picture(tile, "the chosen patch and its surroundings"), title, facts, "token")


def sub_codebook(editing: Editing) -> str:
    """Buttons with the chosen patch and its surroundings under every pixel code of its sub-codebook."""
    k, j = editing.codes.at(editing.position)
    options = []
    for number, image in enumerate(editing.codes.alternatives(editing.position)):
        options.append((str(number), f"pixel code {number}", _surroundings(image, editing)))
    return choices(options, str(j), f"Pixel codes under semantic code {k}")


def other_patches(workspace: Workspace, editing: Editing, folder: str) -> str:
    """Patches of other images with the chosen semantic code.

    Args:
        workspace: knows the examples.
        editing: the image.
        folder: a folder of images; empty for the examples.

    Raises:
        ValueError: the folder has no readable images.
    """
    index = workspace.patches(editing.model, folder.strip())
    found = index.found
    k, j = editing.codes.at(editing.position)
    # The chosen patch itself, where its image is among the others: the same ids throughout.
    same = set(found.images_I[(found.ids_IN == editing.read.ids_N).all(dim=1)].tolist())
    place = divmod(editing.position, found.grid[1])
    chosen = found.choose(k, PATCHES_SHOWN + len(same))
    patches = [patch for patch in chosen if patch.image not in same or (patch.row, patch.column) != place]
    images = len(found.images_I)
    if not patches:
        return empty(
            f"No other patch of the {images:,} images has semantic code {k:,}; a folder of your own may have some."
        )
    (line,) = code_rows(found, index.source, {k: patches[:PATCHES_SHOWN]}, context=CONTEXT)
    cards = []
    for patch, tile in zip(line.patches, line.tiles, strict=True):
        name = short(index.source.key(patch.image))
        said = f"{name}, row {patch.row + 1}, column {patch.column + 1}"
        title = f"j = {patch.subcode}" + (", the same" if patch.subcode == j else "")
        cards.append(figure(picture(tile, said), title, [("in", name)], "tile"))
    hits = sum(found.subcode_counts(k)) - (len(chosen) - len(patches))
    count = f"{len(cards)} of {hits:,}" if hits > len(cards) else f"{hits:,}"
    head = f"{count} patch{'' if hits == 1 else 'es'} in {images:,} images, ordered by pixel code."
    return f"<p>{head}</p>{row(cards, 'tiles')}"


def mix(workspace: Workspace, first: str | None, second: str | None, model: str) -> str:
    """Two photographs, and the semantic codes of each with the pixel codes of the other.

    Raises:
        ValueError: see ``open_image``.
    """
    if first is None or second is None:
        return empty("Choose a second photograph to mix the codes of both.")
    one, two = (
        read_codes(workspace.tokenizer(model), load_image(path, name="the photograph")) for path in (first, second)
    )
    shown: Sequence[tuple[str, ImageCodes]] = [
        ("codes of the first", one),
        ("semantic of the first, pixel of the second", one.with_pixel_codes_of(two)),
        ("semantic of the second, pixel of the first", two.with_pixel_codes_of(one)),
        ("codes of the second", two),
    ]
    return row([figure(picture(codes.picture(), title), title) for title, codes in shown], "four")


def _first_choice(codes: ImageCodes) -> int:
    counts = torch.bincount(codes.semantic_ids)[codes.semantic_ids].tolist()
    rows, columns = codes.grid

    def distance(position: int) -> float:
        row_number, column = divmod(position, columns)
        return abs(row_number - rows / 2) + abs(column - columns / 2)

    return min(range(len(counts)), key=lambda position: (-counts[position], distance(position)))


def _name(editing: Editing, position: int) -> str:
    row_number, column = divmod(position, editing.codes.grid[1])
    k, j = editing.codes.at(position)
    return f"row {row_number + 1}, column {column + 1}: semantic code {k}, pixel code {j}"


def _surroundings(image: Image.Image, editing: Editing) -> Image.Image:
    """The chosen patch, framed, and its neighbours, cut out of a picture of the whole image."""
    rows, columns = editing.codes.grid
    detail = tile_detail(CONTEXT)
    patch = Patch(0, *divmod(editing.position, columns), editing.codes.at(editing.position)[1])
    return cut_tile(image.resize((columns * detail, rows * detail)), patch, detail, CONTEXT)
