"""The tab *Codes*: the token of one patch, other patches of its code, its sub-codebook, changed tokens, mixed images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    """Read the codes of a photograph; the token in the middle is chosen.

    Raises:
        ValueError: an unreadable image, or a tokenizer that has no semantic codes or cannot be loaded.
    """
    image = load_image(photograph, name="the photograph")
    codes = read_codes(workspace.tokenizer(model), image)
    rows, columns = codes.grid
    return Editing(model, fit_image(image, SIDE, SIDE), codes, codes, rows // 2 * columns + columns // 2)


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
        ("in this image", f"{others} other patch{'' if others == 1 else 'es'} with this semantic code"),
    ]
    row_number, column = divmod(editing.position, editing.codes.grid[1])
    patch = Patch(0, row_number, column, j)
    detail = tile_detail(CONTEXT)
    fine = editing.square.resize((editing.codes.grid[1] * detail, editing.codes.grid[0] * detail))
    tile = cut_tile(fine, patch, detail, CONTEXT)
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
    k, j = editing.codes.at(editing.position)
    patches = index.found.choose(k, PATCHES_SHOWN)
    images = len(index.found.images_I)
    if not patches:
        return empty(f"None of the {images:,} images has a patch with semantic code {k:,}.")
    (line,) = code_rows(index.found, index.source, {k: patches}, context=CONTEXT)
    cards = []
    for patch, tile in zip(line.patches, line.tiles, strict=True):
        name = short(index.source.key(patch.image))
        said = f"{name}, row {patch.row + 1}, column {patch.column + 1}"
        title = f"j = {patch.subcode}" + (" (the same)" if patch.subcode == j else "")
        cards.append(figure(picture(tile, said), title, [("in", name)], "tile"))
    hits = sum(index.found.subcode_counts(k))
    head = f"{len(cards)} of {hits:,} patches with semantic code {k:,} in {images:,} images, by pixel code"
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
        ("first: its own codes", one),
        ("semantic of the first, pixel of the second", one.with_pixel_codes_of(two)),
        ("semantic of the second, pixel of the first", two.with_pixel_codes_of(one)),
        ("second: its own codes", two),
    ]
    return row([figure(picture(codes.picture(), title), title) for title, codes in shown])


def _name(editing: Editing, position: int) -> str:
    row_number, column = divmod(position, editing.codes.grid[1])
    k, j = editing.codes.at(position)
    return f"row {row_number + 1}, column {column + 1}: semantic code {k}, pixel code {j}"


def _surroundings(image: Image.Image, editing: Editing) -> Image.Image:
    """The chosen patch and its neighbours, cut out of a decoded picture; shifted inwards at the border."""
    rows, columns = editing.codes.grid
    high, wide = image.height // rows, image.width // columns
    row_number, column = divmod(editing.position, columns)
    top = min(max(row_number - CONTEXT, 0), max(rows - 1 - 2 * CONTEXT, 0)) * high
    left = min(max(column - CONTEXT, 0), max(columns - 1 - 2 * CONTEXT, 0)) * wide
    return image.crop((left, top, left + (1 + 2 * CONTEXT) * wide, top + (1 + 2 * CONTEXT) * high))
