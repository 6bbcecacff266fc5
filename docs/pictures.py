"""The pictures of the tokenizer in docs/, made from the photographs in examples/.

python docs/pictures.py [CHECKPOINT]                    # those of the README and of how-it-works.md
python docs/pictures.py OUT.webp "HEADING=MODEL" ...    # what several models give back, beside each other
"""

from __future__ import annotations

import colorsys
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from semhitok import SemHiTokModel, TokenizerImageProcessor
from semhitok.data.transforms import to_pil
from semhitok.visualization.canvas import BACKGROUND, INK, MARGIN, font

HERE = Path(__file__).parent
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
FIRST_PICTURE = (*PHOTOGRAPHS[:3], "camera", "hubble_deep_field", "rocket")
TILE, GAP, HEAD = 192, 10, 34
SWAPPED, SHOWN_CODES = 6, 8  # tokens and pixel codes in the picture of sub-codebooks


@torch.no_grad()
def main(arguments: list[str]) -> None:
    """Make the pictures of one checkpoint, or the comparison of several models."""
    if arguments and arguments[0].endswith(".webp"):
        _save(compared(dict(argument.split("=", 1) for argument in arguments[1:])), Path(arguments[0]))
        return
    tokenizer = SemHiTokModel.from_pretrained(arguments[0] if arguments else "mini").eval()
    pixel_values = photographs(tokenizer.config.image_size)
    _save(two_codes(tokenizer, pixel_values), HERE / "images" / "two_codes.webp")
    _save(sub_codebooks(tokenizer, pixel_values), HERE / "images" / "sub_codebooks.webp")
    several = photographs(tokenizer.config.image_size, FIRST_PICTURE)
    _save(reconstructions(tokenizer, several), HERE / "images" / "reconstruction.webp")


def _save(picture: Image.Image, file: Path) -> None:
    picture.save(file, quality=88, method=6)


def photographs(size: int, names: Sequence[str] = PHOTOGRAPHS) -> Tensor:
    """(N,3,size,size) in [-1,1]."""
    files = [str(HERE.parent / "examples" / "photographs" / f"{name}.jpg") for name in names]
    return TokenizerImageProcessor(size=size)(files)["pixel_values"]


def compared(models: dict[str, str]) -> Image.Image:
    """Each photograph, and what comes back from each model, by heading; all take images of one size."""
    columns: dict[str, list[Image.Image]] = {}
    for heading, model in models.items():
        tokenizer = SemHiTokModel.from_pretrained(model, dtype=torch.float32).eval()
        pixel_values = photographs(tokenizer.config.image_size)
        encoded = tokenizer.encode(pixel_values)
        columns.setdefault("image", [to_pil(image) for image in pixel_values])
        columns[heading] = [to_pil(image) for image in tokenizer.decode(encoded.ids, encoded.grid)]
    return _table(columns)


def reconstructions(tokenizer: SemHiTokModel, pixel_values: Tensor) -> Image.Image:
    """Photographs over what comes back, without words."""
    encoded = tokenizer.encode(pixel_values)
    rows = (pixel_values, tokenizer.decode(encoded.ids, encoded.grid))
    step = TILE + GAP
    sheet = Image.new("RGB", (step * len(pixel_values) - GAP, step * 2 - GAP), BACKGROUND)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            sheet.paste(to_pil(image).resize((TILE, TILE), Image.Resampling.BICUBIC), (step * column, step * row))
    return sheet


def two_codes(tokenizer: SemHiTokModel, pixel_values: Tensor) -> Image.Image:
    """Each photograph, its semantic ids as colours, what they alone draw, and what both codes draw."""
    encoded = tokenizer.encode(pixel_values)
    semantic_ids, pixel_ids = tokenizer.pixel_quantizer.split_ids(encoded.ids)
    first = tokenizer.pixel_quantizer.flatten_ids(semantic_ids, torch.zeros_like(pixel_ids))
    columns = {
        "image": [to_pil(image) for image in pixel_values],
        "semantic codes k": [_colours(ids.unflatten(0, encoded.grid)) for ids in semantic_ids],
        "pixel codes j": [_greys(ids.unflatten(0, encoded.grid), tokenizer) for ids in pixel_ids],
        "decoded, every j set to 0": [to_pil(image) for image in tokenizer.decode(first, encoded.grid)],
        "decoded": [to_pil(image) for image in tokenizer.decode(encoded.ids, encoded.grid)],
    }
    return _table(columns)


def sub_codebooks(tokenizer: SemHiTokModel, pixel_values: Tensor) -> Image.Image:
    """One token of an image under several pixel codes of its sub-codebook: all else, and its meaning, stays as it is."""
    m = tokenizer.config.subcodebook_size
    encoded = tokenizer.encode(pixel_values[:1])
    patch = tokenizer.config.patch_size
    rows, columns = encoded.grid
    # Tokens spread over the inside of the image, so that their surroundings can be shown.
    places = [(1 + (rows - 3) * (index // 3), 1 + (columns - 3) * (index % 3) // 2) for index in range(SWAPPED)]
    semantic_ids, pixel_ids = tokenizer.pixel_quantizer.split_ids(encoded.ids)
    others = range(0, m, -(-m // SHOWN_CODES))
    shown: dict[str, list[Image.Image]] = {"encoded": [], **{f"j = {j}": [] for j in others}}
    for row, column in places:
        position = row * columns + column
        for heading, j in (("encoded", int(pixel_ids[0, position])), *((f"j = {j}", j) for j in others)):
            ids = pixel_ids.clone()
            ids[0, position] = j
            image = tokenizer.decode(tokenizer.pixel_quantizer.flatten_ids(semantic_ids, ids), encoded.grid)[0]
            top, left = (row - 1) * patch, (column - 1) * patch
            tile = to_pil(image[:, top : top + 3 * patch, left : left + 3 * patch])
            shown[heading].append(_framed(tile, heading == "encoded"))
    return _table(shown, tile=120)


def _colours(ids: Tensor) -> Image.Image:
    """A colour for each semantic code; equal colours are equal codes."""
    picture = Image.new("RGB", (ids.shape[1], ids.shape[0]))
    for row, line in enumerate(ids.tolist()):
        for column, code in enumerate(line):
            # The golden angle keeps codes with near numbers apart.
            red, green, blue = colorsys.hsv_to_rgb(code * 0.618034 % 1, 0.35 + 0.5 * (code * 0.7548 % 1), 0.95)
            picture.putpixel((column, row), (int(255 * red), int(255 * green), int(255 * blue)))
    return picture


def _greys(ids: Tensor, tokenizer: SemHiTokModel) -> Image.Image:
    """Pixel codes as shades of grey."""
    shades = (ids * 200 // max(tokenizer.config.subcodebook_size - 1, 1) + 40).to(torch.uint8)
    return Image.fromarray(shades.numpy()).convert("RGB")


def _framed(picture: Image.Image, chosen: bool) -> Image.Image:
    """Five times as large, with a frame around the token in the middle; black if it is as encoded."""
    side = picture.width * 5
    picture = picture.resize((side, side), Image.Resampling.NEAREST)
    box = (side // 3, side // 3, 2 * side // 3 - 1, 2 * side // 3 - 1)
    ImageDraw.Draw(picture).rectangle(box, outline="black" if chosen else "white", width=3 if chosen else 1)
    return picture


def _table(columns: dict[str, list[Image.Image]], tile: int = TILE) -> Image.Image:
    """Pictures in columns under their headings."""
    count = len(next(iter(columns.values())))
    width = 2 * MARGIN + len(columns) * (tile + GAP) - GAP
    picture = Image.new("RGB", (width, 2 * MARGIN + HEAD + count * (tile + GAP) - GAP), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for number, (heading, images) in enumerate(columns.items()):
        x = MARGIN + number * (tile + GAP)
        draw.text((x, MARGIN), heading, INK, font(15))
        for row, image in enumerate(images):
            enlarged = image.resize((tile, tile), Image.Resampling.NEAREST)
            picture.paste(enlarged, (x, MARGIN + HEAD + row * (tile + GAP)))
    return picture


if __name__ == "__main__":
    main(sys.argv[1:])
