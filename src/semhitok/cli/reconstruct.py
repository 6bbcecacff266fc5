"""``semhitok reconstruct``: images through the tokenizer and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from PIL import Image
from torch import Tensor

from semhitok.cli.arguments import Checkpoint, Count, Device, ImagePaths
from semhitok.cli.progress import progress_bars
from semhitok.data.images import load_image
from semhitok.data.transforms import TileLayout, fit_image, to_float, to_pil, to_uint8, untile
from semhitok.inference.loading import SHIPPED, image_files, image_processor, load_tokenizer
from semhitok.inference.token_files import save_ids
from semhitok.metrics.rate import tokenizer_bits
from semhitok.metrics.reconstruction import psnr_per_image, ssim_per_image
from semhitok.nn.patches import resize
from semhitok.storage.atomic import write_text
from semhitok.tokenizers.image_processing import FitMode
from semhitok.tokenizers.protocol import Tokenizer
from semhitok.visualization.examples import Examples, draw_examples

SHOWN = 16  # images in the picture
SHOWN_SIDE = 320  # side in pixels of tiled images in the picture, whose own sizes differ


@dataclass(frozen=True)
class Arguments:
    """Send images through a tokenizer and back.

    Writes to the folder --out: reconstruction.png (originals over reconstructions), ids.npy, figures.json, and each
    reconstruction by itself in images/.
    """

    images: ImagePaths
    """Image files, or folders of them."""
    model: Checkpoint = SHIPPED
    """A folder, a hub id, or the name of a shipped checkpoint."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("reconstruction")
    """Folder to write to."""
    fit: FitMode = "crop"
    """What to do with other shapes: crop the centre, resize (squeeze), or tile at the photo's own resolution."""
    batch_size: Count = 32
    """Images at a time."""
    device: Device = None
    """cpu, cuda, cuda:1 ..."""


@dataclass(frozen=True)
class Restored:
    """One image, or the tiles of one image, that went through; n squares.

    Attributes:
        file: it came from.
        ids: (n,N) or (n,N,C) on the CPU.
        originals, copies: (n,3,H,W) in [-1,1] at the size that the tokenizer predicts.
        layout: of the tiles, None for an image that was made square.
    """

    file: Path
    ids: Tensor
    originals: Tensor
    copies: Tensor
    layout: TileLayout | None

    def whole(self, image_size: int) -> Image.Image:
        """The reconstruction; tiles are put together at the size that they were cut."""
        if self.layout is None:
            return to_pil(self.copies[0])
        return untile([to_pil(tile) for tile in resize(self.copies, image_size, image_size)], self.layout)


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok reconstruct")
    files = image_files(options.images)
    model = load_tokenizer(options.model, options.device)
    ids: list[Tensor] = []
    names: list[str] = []
    figures: list[dict[str, str | float]] = []
    shown: list[tuple[Tensor, Tensor]] = []
    with progress_bars() as advance:
        for start in range(0, len(files), options.batch_size):
            for restored in reconstruct(
                model, files[start : start + options.batch_size], options.fit, options.batch_size
            ):
                picture = restored.whole(model.config.image_size)
                _save(picture, options.out / "images" / f"{len(figures):03d}_{restored.file.stem}.png")
                if len(shown) < SHOWN:
                    shown.append(_example(restored, picture))
                psnr, ssim = (f(restored.originals, restored.copies).mean() for f in (psnr_per_image, ssim_per_image))
                figures.append({"name": restored.file.name, "psnr": psnr.item(), "ssim": ssim.item()})
                names += _names(restored)
                ids.append(restored.ids)
            advance("reconstructing", len(figures), len(files))
    size = model.config.image_size
    save_ids(options.out / "ids.npy", torch.cat(ids), model.config.grid(size, size), names)
    _write_figures(options.out / "figures.json", options.model, model, figures)
    bits = tokenizer_bits(model.num_tokens * model.codes_per_token, model.vocab_size)
    several = f"{model.codes_per_token} x " if model.codes_per_token > 1 else ""
    each = "a tile" if options.fit == "tile" else "an image"
    line = f"{model.num_tokens} tokens of {several}{model.vocab_size:,} codes = {bits / 8:.0f} bytes {each}"
    line += f"; mean PSNR {sum(float(entry['psnr']) for entry in figures) / len(figures):.2f} dB"
    count = f"{len(files)} image{'s' if len(files) > 1 else ''}"
    examples = Examples(*(torch.stack(column) for column in zip(*shown, strict=True)))
    title = f"semhitok {Path(options.model).name}"
    heading = count if len(files) <= SHOWN else f"{SHOWN} of {count}"
    draw_examples({heading: examples}, title=title, subtitle=line).save(options.out / "reconstruction.png")
    print(f"{count}, {line}")
    for name in ("reconstruction.png", "ids.npy", "figures.json", "images"):
        print(f"wrote {options.out / name}")
    return 0


@torch.no_grad()
def reconstruct(model: Tokenizer, files: list[Path], fit: FitMode, batch_size: int) -> list[Restored]:
    """The files through the tokenizer; tiles go ``batch_size`` at a time, too."""
    batch = image_processor(model)(files, mode=fit)
    pixel_values, layouts = batch["pixel_values"], batch.get("tiles", [None] * len(files))
    grid = model.config.grid(*pixel_values.shape[-2:])
    ids, copies = [], []
    for part in pixel_values.split(batch_size):
        encoded = model.encode(part.to(model.device)).ids
        ids.append(encoded.cpu())
        copies.append(model.decode(encoded, grid).float().cpu())
    counts = [layout.rows * layout.columns if layout else 1 for layout in layouts]
    whole = torch.cat(copies)
    # Where sides are no multiple of the patch, a tokenizer predicts the image resampled to whole patches.
    columns = (torch.cat(ids), resize(pixel_values, *whole.shape[-2:]), whole)
    parts = zip(files, *(column.split(counts) for column in columns), layouts, strict=True)
    return [Restored(*part) for part in parts]


def _names(restored: Restored) -> list[str]:
    """The file's name for each of its rows of ids."""
    if restored.layout is None:
        return [restored.file.name]
    places = ((row, column) for row in range(restored.layout.rows) for column in range(restored.layout.columns))
    return [f"{restored.file.name} tile {row},{column}" for row, column in places]


def _example(restored: Restored, picture: Image.Image) -> tuple[Tensor, Tensor]:
    """Original and reconstruction for the picture; tiled images are shown whole, their centres scaled to one size."""
    if restored.layout is None:
        return restored.originals[0], restored.copies[0]
    pair = (fit_image(image, SHOWN_SIDE, SHOWN_SIDE) for image in (load_image(restored.file), picture))
    original, copy = (to_float(to_uint8(image)) for image in pair)
    return original, copy


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _write_figures(path: Path, name: str, model: Tokenizer, figures: list[dict[str, str | float]]) -> None:
    means = {key: sum(float(entry[key]) for entry in figures) / len(figures) for key in ("psnr", "ssim")}
    content = {
        "model": name,
        "tokens": model.num_tokens,
        "codes_per_token": model.codes_per_token,
        "bits": tokenizer_bits(model.num_tokens * model.codes_per_token, model.vocab_size),
        **means,
        "data_range": "[0, 1], after clamping",
        "images": figures,
    }
    write_text(path, json.dumps(content, indent=1))
