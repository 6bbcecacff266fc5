"""The paper's Figure 5 for any codes: a row for each semantic code, its patches grouped by pixel code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from PIL import Image, ImageDraw

from semhitok.data.sample import ImageSource
from semhitok.data.transforms import fit_image
from semhitok.inference.code_patches import CodePatches, Patch
from semhitok.types import FitMode
from semhitok.visualization.canvas import FAINT, INK, MARGIN, blank, font, head_height, head_width

TILE = 96  # approximate side of a tile in pixels
GAP, GROUP_GAP = 4, 14
CAPTION = 30  # height in pixels of the line under a row
LABEL = 150  # width in pixels of the label left of a row
BEYOND = "#d5dae0"  # colour beyond the border of an image


@dataclass(frozen=True)
class CodeRow:
    """One semantic code: its number, lines of notes, its patches ordered by pixel code, a tile for each."""

    code: int
    notes: Sequence[str]
    patches: Sequence[Patch]
    tiles: Sequence[Image.Image]


def code_rows(
    found: CodePatches,
    source: ImageSource,
    patches: Mapping[int, Sequence[Patch]],
    *,
    context: int = 1,
    fit: FitMode = "crop",
) -> list[CodeRow]:
    """The rows of ``draw_codes``; tiles are cut from the images at a higher resolution than the tokenizer's.

    Args:
        found: patches of all codes.
        source: the images; those with patches are read again.
        patches: patches to show, by semantic code.
        context: neighbouring patches shown on each side of a patch.
        fit: as in encoding.
    """
    detail, tiles = tile_detail(context), {}
    by_image: dict[int, list[Patch]] = {}
    for patch in (patch for row in patches.values() for patch in row):
        by_image.setdefault(patch.image, []).append(patch)
    for image, inside in by_image.items():
        fine = fit_image(source.load(image).image, found.grid[0] * detail, found.grid[1] * detail, fit)
        tiles |= {patch: cut_tile(fine, patch, detail, context) for patch in inside}
    return [CodeRow(code, _notes(found, code), row, [tiles[patch] for patch in row]) for code, row in patches.items()]


def tile_detail(context: int) -> int:
    """Side in pixels of a patch, so that it fills a tile together with its surroundings."""
    return TILE // (1 + 2 * context)


def cut_tile(image: Image.Image, patch: Patch, detail: int, context: int) -> Image.Image:
    """A patch, framed, with ``context`` patches around it.

    Args:
        image: the whole image, with ``detail`` pixels for each row and column of tokens.
        patch: the patch to cut out.
        detail: see ``tile_detail``.
        context: neighbouring patches on each side; beyond the border of the image the tile is grey.
    """
    left, top = (patch.column - context) * detail, (patch.row - context) * detail
    side = (1 + 2 * context) * detail
    tile = Image.new("RGB", (side, side), BEYOND)
    inside = (max(left, 0), max(top, 0), min(left + side, image.width), min(top + side, image.height))
    tile.paste(image.crop(inside), (inside[0] - left, inside[1] - top))
    if context:
        first, last = context * detail, (context + 1) * detail - 1
        draw = ImageDraw.Draw(tile)
        draw.rectangle((first - 1, first - 1, last + 1, last + 1), outline="black")
        draw.rectangle((first, first, last, last), outline="white")
    return tile


def draw_codes(rows: Sequence[CodeRow], *, title: str, subtitle: str) -> Image.Image:
    """Draw for each code its number and notes, and its tiles with their pixel codes below."""
    side = max((tile.width for row in rows for tile in row.tiles), default=TILE)
    widths = [_width(row, side) for row in rows]
    head = head_height(subtitle) + 12
    width = 2 * MARGIN + max(head_width(title, subtitle), LABEL + max(widths))
    height = head + len(rows) * (side + CAPTION) + MARGIN
    picture, draw = blank(width, height, title=title, subtitle=subtitle)
    for number, row in enumerate(rows):
        y = head + number * (side + CAPTION)
        draw.text((MARGIN, y + 8), f"code {row.code:,}", INK, font(18))
        for line, note in enumerate(row.notes):
            draw.text((MARGIN, y + 34 + 19 * line), note, FAINT, font(14))
        _draw_row(picture, row, MARGIN + LABEL, y, side)
    return picture


def _notes(found: CodePatches, code: int) -> list[str]:
    hits, seen = sum(found.subcode_counts(code)), int(found.seen_K[code])
    if not hits:
        return []
    count = f"{hits:,} patch{'es' if hits > 1 else ''}"
    return [count, f"in {seen:,} image{'s' if seen > 1 else ''}", f"alike {float(found.likeness_K[code]):.2f}"]


def _draw_row(picture: Image.Image, row: CodeRow, x: int, y: int, side: int) -> None:
    draw = ImageDraw.Draw(picture)
    if not row.tiles:
        draw.text((x, y + side // 2), "no patch of these images is assigned to it", FAINT, font(15), anchor="lm")
    pairs = zip(row.patches, row.tiles, strict=True)
    for subcode, group in groupby(pairs, key=lambda pair: pair[0].subcode):
        start = x
        for _, tile in group:
            picture.paste(tile, (x, y))
            x += side + GAP
        end = x - GAP
        draw.line((start, y + side + 4, end - 1, y + side + 4), FAINT, 2)
        draw.text(((start + end) // 2, y + side + 8), f"j = {subcode}", FAINT, font(14), anchor="ma")
        x = end + GROUP_GAP


def _width(row: CodeRow, side: int) -> int:
    groups = len({patch.subcode for patch in row.patches})
    gaps = (len(row.tiles) - groups) * GAP + max(groups - 1, 0) * GROUP_GAP
    return len(row.tiles) * side + max(gaps, 0)
