"""``semhitok reconstruct``: images through the tokenizer and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from semhitok.cli.arguments import Checkpoint, Count, Device, ImagePaths
from semhitok.cli.progress import progress_bars
from semhitok.inference import DEFAULT_TOKENIZER
from semhitok.storage.atomic import write_text
from semhitok.types import FitOrTile

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from semhitok.inference.reconstruction import Reconstruction

SHOWN = 16  # images in the picture
SHOWN_SIDE = 320  # side in pixels of tiled images in the picture, whose own sizes differ


@dataclass(frozen=True)
class Arguments:
    """Send images through a tokenizer and back.

    Writes to the folder --out: reconstruction.png (originals over reconstructions), ids.npy, figures.json, and the
    single reconstructions in images/. Images that cannot be read are skipped, reported and counted.
    """

    images: ImagePaths
    """Image files, or folders of them."""
    model: Checkpoint = DEFAULT_TOKENIZER
    """A folder, a hub id, or the name of a bundled checkpoint."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("reconstruction")
    """Folder to write to."""
    fit: FitOrTile = "crop"
    """How to make images square: crop the centre, resize (squeeze), or tile at the photo's own resolution."""
    batch_size: Count = 32
    """Number of images per batch."""
    device: Device = None
    """Device to run on: cpu, cuda, or the number of a GPU, such as 1 (the same as cuda:1)."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok reconstruct")
    import torch

    from semhitok.cli.skipping import SkippedImages
    from semhitok.data.folder import image_files
    from semhitok.inference.loading import load_tokenizer
    from semhitok.inference.reconstruction import reconstruct_images
    from semhitok.inference.token_files import save_ids
    from semhitok.metrics.rate import tokenizer_bits
    from semhitok.metrics.reconstruction import psnr_per_image, ssim_per_image
    from semhitok.visualization.examples import Examples, draw_examples

    files = image_files(options.images)
    model = load_tokenizer(options.model, options.device)
    ids: list[Tensor] = []
    names: list[str] = []
    figures: list[dict[str, str | float]] = []
    shown: list[tuple[Tensor, Tensor]] = []
    skipped = SkippedImages()
    with progress_bars() as advance:
        restorations = reconstruct_images(
            model, files, fit=options.fit, batch_size=options.batch_size, on_bad=skipped.add
        )
        for restored in restorations:
            file = restored.source
            assert isinstance(file, Path)
            picture = restored.image()
            _save(picture, options.out / "images" / f"{len(figures):03d}_{file.stem}.png")
            if len(shown) < SHOWN:
                shown.append(_example(file, restored, picture))
            psnr, ssim = (f(restored.originals, restored.copies).mean() for f in (psnr_per_image, ssim_per_image))
            figures.append({"name": file.name, "psnr": psnr.item(), "ssim": ssim.item()})
            names += _names(file, restored)
            ids.append(restored.ids)
            advance("reconstructing", len(figures) + len(skipped), len(files))
    skipped.report(len(files))
    size = model.config.image_size
    save_ids(options.out / "ids.npy", torch.cat(ids), model.config.grid(size, size), names)
    bits = tokenizer_bits(model.num_tokens * model.codes_per_token, model.vocab_size)
    of_model = {"tokens": model.num_tokens, "codes_per_token": model.codes_per_token, "bits": bits}
    _write_figures(options.out / "figures.json", {"model": options.model, **of_model}, figures)
    several = f"{model.codes_per_token} x " if model.codes_per_token > 1 else ""
    each = "a tile" if options.fit == "tile" else "an image"
    line = f"{model.num_tokens} tokens of {several}{model.vocab_size:,} codes = {bits / 8:.0f} bytes {each}"
    line += f"; mean PSNR {sum(float(entry['psnr']) for entry in figures) / len(figures):.2f} dB"
    count = f"{len(figures)} image{'s' if len(figures) > 1 else ''}"
    examples = Examples(*(torch.stack(column) for column in zip(*shown, strict=True)))
    title = f"semhitok {Path(options.model).name}"
    heading = count if len(figures) <= SHOWN else f"{SHOWN} of {count}"
    draw_examples({heading: examples}, title=title, subtitle=line).save(options.out / "reconstruction.png")
    print(f"{count}, {line}")
    for name in ("reconstruction.png", "ids.npy", "figures.json", "images"):
        print(f"wrote {options.out / name}")
    return 0


def _names(file: Path, restored: Reconstruction) -> list[str]:
    """The file's name for each of its rows of ids."""
    if restored.layout is None:
        return [file.name]
    places = ((row, column) for row in range(restored.layout.rows) for column in range(restored.layout.columns))
    return [f"{file.name} tile {row},{column}" for row, column in places]


def _example(file: Path, restored: Reconstruction, picture: Image.Image) -> tuple[Tensor, Tensor]:
    """Original and reconstruction for the picture; tiled images are shown whole, their centres scaled to one size."""
    from semhitok.data.images import load_image
    from semhitok.data.transforms import fit_image, to_float, to_uint8

    if restored.layout is None:
        return restored.originals[0], restored.copies[0]
    pair = (fit_image(image, SHOWN_SIDE, SHOWN_SIDE) for image in (load_image(file), picture))
    original, copy = (to_float(to_uint8(image)) for image in pair)
    return original, copy


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _write_figures(path: Path, head: dict[str, Any], figures: list[dict[str, str | float]]) -> None:
    means = {key: sum(float(entry[key]) for entry in figures) / len(figures) for key in ("psnr", "ssim")}
    content = {**head, **means, "data_range": "[0, 1], after clamping", "images": figures}
    write_text(path, json.dumps(content, indent=1))
