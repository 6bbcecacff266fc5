"""How much of the bare model's speed is left when images are read as well?

    python -m benchmarks.reading_overlap [--quick]

Right: ``nano`` on a batch that is ready. Left: the same number of JPEG photographs of 640 x 480 pixels through ``encode_images``,
``pretokenize`` and the reader of ``evaluate``, decoding and resizing included. CPU time tells what reading costs in all: on a CPU that the model
keeps busy nothing can be hidden, and the ratio is at best model / (model + reading).
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from benchmarks.measuring import interleaved
from benchmarks.reporting import Aim, Report, Row, run_alone
from PIL import Image

from semhitok.data.folder import ImageFolder
from semhitok.data.images import load_image
from semhitok.data.reading import SizedImages
from semhitok.data.shards import find_shards
from semhitok.data.transforms import fit_image, to_float, to_uint8
from semhitok.inference.loading import load_tokenizer
from semhitok.inference.reconstruction import encode_images
from semhitok.runs.pretokenize import Reading, tokenize_shards

BATCH = 32
PHOTOGRAPHS = Path(__file__).parents[1] / "examples" / "photographs"


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Crops of the example photographs, scaled to 640 x 480."""
    sources = [load_image(path) for path in sorted(PHOTOGRAPHS.glob("*.jpg"))]
    generator = np.random.default_rng(0)
    for number in range(count):
        image = sources[number % len(sources)]
        left, top = (int(generator.integers(0, side // 4)) for side in image.size)
        crop = image.crop((left, top, left + 3 * image.width // 4, top + 3 * image.height // 4))
        crop.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=90)
    return sorted(folder.glob("*.jpg"))


@torch.no_grad()
def measure(quick: bool) -> Report:
    """192 photographs; 64 if quick."""
    count = 64 if quick else 192
    model = load_tokenizer("nano", "cpu")
    side = model.config.image_size
    with tempfile.TemporaryDirectory() as temporary:
        folder, outputs = Path(temporary) / "photographs", iter(range(1000))
        folder.mkdir()
        files = write_photographs(folder, count)
        ready = torch.stack([to_float(to_uint8(fit_image(load_image(file), side, side))) for file in files[:BATCH]])

        def bare() -> None:
            for _ in range(count // BATCH):
                model.encode(ready)

        def encode() -> None:
            for _ in encode_images(model, files, batch_size=BATCH):
                pass

        def evaluate() -> None:
            for batch in SizedImages(ImageFolder(folder), side, batch_size=BATCH):
                model.encode(to_float(batch.images))

        def pretokenize() -> None:
            out = Path(temporary) / f"ids-{next(outputs)}"
            list(tokenize_shards(find_shards(folder), out, model, Reading(batch_size=BATCH)))

        def read() -> None:
            for _ in SizedImages(ImageFolder(folder), side, batch_size=BATCH):
                pass

        sides = {
            "bare": bare,
            "encode": encode,
            "evaluate's reader": evaluate,
            "pretokenize": pretokenize,
            "reading": read,
        }
        times = interleaved(sides, rounds=1 if quick else 5)
    row = partial(Row.of_times, right=("bare model", times["bare"]))
    rows = [row(name, left=(name, times[name]), aim=Aim("at most", 1 / 0.9)) for name in list(sides)[1:4]]
    rows.append(row("reading alone", left=("reading", times["reading"])))
    return Report(
        name="reading_overlap",
        title="reading beside the model",
        method=f"`nano`, {count} JPEG photographs of 640 x 480 pixels, batches of {BATCH}, {torch.get_num_threads()} threads. "
        "At most 1.11 means at least 90 % of the bare model's images/s.",
        rows=rows,
    )


if __name__ == "__main__":
    run_alone(measure, __doc__)
