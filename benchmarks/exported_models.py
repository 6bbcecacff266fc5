"""A tokenizer beside its exported files: equal ids, pixels, sizes, and times on the CPU.

    python -m benchmarks.exported_models [MODEL] [--images PATH] [--count 1000] [--rounds 7] [--aot] [--onnx FOLDER]

Ids and pixels are compared on ``--images`` (a folder; random images without it). Times are those of the same images in one run:
eager torch, onnxruntime in fp32 and int8, and with ``--aot`` the program as compiled by AOTInductor, which needs a C++ compiler;
all with as many threads as torch has (OMP_NUM_THREADS). A ratio above 1 is faster than eager.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from benchmarks.measuring import interleaved, paired_ratio

from semhitok.data.folder import image_files
from semhitok.export.agreement import Run, compare, synthetic_images
from semhitok.export.graphs import SIDES, quietly
from semhitok.export.onnx_files import export_onnx, session
from semhitok.export.programs import export_programs
from semhitok.inference.loading import load_tokenizer
from semhitok.tokenizers.image_processing import TokenizerImageProcessor

FEW = 8  # images that an export is compared on while it is written
BATCHES = (1, 8)


def compiled(program: Path, package: Path) -> Run:
    """A program as AOTInductor compiles it."""
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    with quietly():
        aoti_compile_and_package(torch.export.load(program), package_path=str(package))
        loaded = aoti_load_package(str(package))

    def run(values: np.ndarray) -> np.ndarray:
        found = loaded(torch.from_numpy(values))
        return (found if isinstance(found, torch.Tensor) else found[0]).numpy()

    return run


@torch.no_grad()
def main() -> None:
    """Print three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="nano", help="a bundled name, a folder, a run")
    parser.add_argument("--images", type=Path, help="folder of images")
    parser.add_argument("--count", type=int, default=1000, help="images to compare on")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of the times; 0 for none")
    parser.add_argument("--onnx", type=Path, help="files that `semhitok export MODEL FOLDER --format onnx` has written")
    parser.add_argument("--aot", action="store_true", help="compile with AOTInductor, too: minutes")
    options = parser.parse_args()
    model = load_tokenizer(options.model, "cpu")
    size = model.config.image_size
    if options.images is None:
        images = synthetic_images(options.count, size)
    else:
        files = image_files([options.images])[: options.count]
        images = TokenizerImageProcessor(size=size)(files)["pixel_values"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        onnx = options.onnx or folder / "onnx"
        if options.onnx is None:
            export_onnx(model, onnx, name=options.model, images=images[:FEW])
        runs: dict[str, tuple[Run, ...]] = {
            f"onnxruntime {name}": tuple(session(onnx / f"{side}{suffix}.onnx") for side in SIDES)
            for name, suffix in (("fp32", ""), ("int8", ".int8"))
        }
        print(f"{options.model}, {torch.get_num_threads()} threads, {len(images)} images\n\n| file | MB |\n|---|---|")
        for file in sorted(onnx.glob("*.onnx")):
            print(f"| {file.name} | {file.stat().st_size / 2**20:.2f} |")
        if options.aot:
            export_programs(model, folder / "pt2", name=options.model, images=images[:FEW])
            begun = time.perf_counter()
            runs["AOTInductor"] = tuple(
                compiled(folder / "pt2" / f"{side}.pt2", folder / f"{side}.aot.pt2") for side in SIDES
            )
            print(f"\ncompiled by AOTInductor in {time.perf_counter() - begun:.0f} s")
        print("\n| | ids equal to torch's | largest, mean difference of a pixel in [-1, 1] |\n|---|---|---|")
        for name, (encode, decode) in runs.items():
            found = compare(model, encode, decode, images)
            print(
                f"| {name} | {100 * found.equal_ids:.3f} % | {found.pixel_difference:.1e}, "
                f"{found.mean_pixel_difference:.1e} |",
                flush=True,
            )
        if not options.rounds:
            return
        print("\n| batch | side | eager | " + " | ".join(runs) + " |\n|---|---|---|" + "---|" * len(runs))
        for batch in BATCHES:
            some = images[:batch]
            ids = model.encode(some).ids
            for place, side in enumerate(SIDES):
                values = (some, ids)[place].numpy()
                eager = (lambda some=some: model.encode(some), lambda ids=ids: model.decode(ids))[place]
                operations = {"eager": eager} | {
                    name: lambda run=sides[place], values=values: run(values) for name, sides in runs.items()
                }
                times = interleaved(operations, rounds=options.rounds)
                cells = [f"{1000 * times['eager'].seconds.median:.1f} ms"]
                for name in runs:
                    ratio = paired_ratio(times["eager"].wall, times[name].wall).median
                    cells.append(f"{1000 * times[name].seconds.median:.1f} ms, {ratio:.2f}x")
                print(f"| {batch} | {side} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
