"""``semhitok reconstruct``: images through the tokenizer and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from semhitok.cli.ids import save_ids
from semhitok.cli.loading import SHIPPED, choose_device, image_files, image_processor, load_tokenizer
from semhitok.data.images import load_image
from semhitok.data.transforms import TileLayout, to_pil, untile
from semhitok.evaluation.picture import Examples, draw_examples
from semhitok.evaluation.rate import tokenizer_bits
from semhitok.evaluation.reconstruction import psnr_per_image, ssim_per_image
from semhitok.tokenizers import SemHiTokModel
from semhitok.tokenizers.semhitok.image_processing import FitMode


@dataclass(frozen=True)
class Arguments:
    """Send images through a tokenizer and back.

    Writes to the folder --out: reconstruction.png (originals over reconstructions), ids.npy, figures.json, and each
    reconstruction by itself in images/.
    """

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Image files or folders."""
    model: str = SHIPPED
    """Checkpoint: a folder, a hub id, or the name of a shipped one."""
    out: Path = Path("reconstruction")
    """Folder to write to."""
    fit: FitMode = "crop"
    """What to do with other shapes: crop the centre, resize (squeeze), or tile at the photo's own resolution."""
    batch_size: int = 32
    """Images at a time."""
    device: str | None = None
    """cpu, cuda ...; by default a GPU where there is one."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok reconstruct")
    files = image_files(options.images)
    model = load_tokenizer(options.model, options.device)
    processor = image_processor(model)
    batch = processor([load_image(file) for file in files], mode=options.fit)
    pixel_values, layouts = batch["pixel_values"], batch.get("tiles", [])
    ids, restored = _through(model, pixel_values.to(choose_device(options.device)), options.batch_size)
    originals = model.pixel_view(pixel_values)
    options.out.mkdir(parents=True, exist_ok=True)
    grid = model.config.grid(*pixel_values.shape[-2:])
    names = [file.name for file in files]
    save_ids(options.out / "ids.npy", ids, grid, names)
    psnr, ssim = psnr_per_image(originals, restored), ssim_per_image(originals, restored)
    bits = tokenizer_bits(ids.shape[1], model.vocab_size)
    figures = {
        "model": options.model,
        "tokens_per_image": ids.shape[1],
        "bits_per_image": bits,
        "psnr": psnr.mean().item(),
        "ssim": ssim.mean().item(),
        "data_range": "[0, 1], after clamping",
        "images": _per_image(names, layouts, psnr, ssim),
    }
    (options.out / "figures.json").write_text(json.dumps(figures, indent=1))
    _write_images(options.out / "images", files, restored, layouts)
    shown = Examples(originals[:16], restored[:16])
    subtitle = f"{ids.shape[1]} tokens of {model.vocab_size:,} codes = {bits / 8:.0f} bytes an image; mean PSNR {psnr.mean():.2f} dB"
    picture = draw_examples(
        {f"{len(files)} images": shown}, title=f"semhitok {Path(options.model).name}", subtitle=subtitle
    )
    picture.save(options.out / "reconstruction.png")
    print(f"{len(files)} images, {subtitle}")
    for name in ("reconstruction.png", "ids.npy", "figures.json", "images"):
        print(f"wrote {options.out / name}")
    return 0


@torch.no_grad()
def _through(model: SemHiTokModel, pixel_values: torch.Tensor, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    ids, restored = [], []
    for part in pixel_values.split(batch_size):
        encoded = model.encode(part)
        assert encoded.ids is not None
        ids.append(encoded.ids.cpu())
        restored.append(model.decode(encoded.ids, model.config.grid(*part.shape[-2:])).float().cpu())
    return torch.cat(ids), torch.cat(restored)


def _per_image(
    names: list[str], layouts: list[TileLayout], psnr: torch.Tensor, ssim: torch.Tensor
) -> list[dict[str, str | float]]:
    """One entry an image; a tiled one has the mean of its tiles."""
    counts = [layout.rows * layout.columns for layout in layouts] or [1] * len(names)
    parts = zip(names, psnr.split(counts), ssim.split(counts), strict=True)
    return [{"name": name, "psnr": p.mean().item(), "ssim": s.mean().item()} for name, p, s in parts]


def _write_images(folder: Path, files: list[Path], restored: torch.Tensor, layouts: list[TileLayout]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tiles = [to_pil(image) for image in restored]
    for number, file in enumerate(files):
        if layouts:
            count = layouts[number].rows * layouts[number].columns
            image, tiles = untile(tiles[:count], layouts[number]), tiles[count:]
        else:
            image = tiles[number]
        image.save(folder / f"{number:03d}_{file.stem}.png")
