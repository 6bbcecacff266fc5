"""Does a refactoring change anything? Digests of what the commands give, and the losses of every training task.

    python -m benchmarks.digests OUT.json [BEFORE.json]

Writes name -> SHA-256 of a file's content, of what a command prints, or of a tensor; for training also name -> the value of
each step, exactly. Dates, speeds and times are left out. With BEFORE.json every name that differs is printed, and the exit
code is 1 if there is any. Results agree on one machine with one installation only: another processor rounds differently.

Nothing is fetched: networks that stand for fetched ones have random weights, scenes are composed of crops of the example
photographs. Everything goes through the command line but for the few functions that import from elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

# Sums are split differently over another number of threads; all of these are read when torch and others are imported.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HUB_OFFLINE"), "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from benchmarks.digest_language import language_model, language_model_tokenizer, train_language_models
from benchmarks.digest_material import PHOTOGRAPHS, SCENES, write_material
from benchmarks.digest_record import Digests, run
from benchmarks.digest_tokenizers import released_unitok, tokenizer, train_teacher, train_tokenizers

import semhitok
from semhitok.recipes import LANGUAGE_RECIPES, RECIPES, UNITOK_RECIPES

TABLES = Path(__file__).parents[1] / "docs" / "ablations"


def trained(digests: Digests) -> None:
    """What was trained, exported and through the other commands."""
    for name, options in (("nano", "--license MIT --data scenes/train"), ("unitok", ""), ("mllm", "--license MIT")):
        digests.run(f"export runs/{name} exported/{name} {options}".strip())
        digests.run(f"inspect exported/{name} --json")
    digests.run(f"encode {PHOTOGRAPHS} --model exported/unitok --out unitok/ids.safetensors")
    digests.run("decode unitok/ids.safetensors --model exported/unitok --out unitok/decoded")
    digests.run(f"reconstruct {PHOTOGRAPHS}/rocket.jpg --model exported/unitok --fit tile --out unitok/tile")
    digests.run("evaluate runs/unitok test=scenes/shared --probe-train scenes/train --out unitok/evaluation")
    digests.run(f"evaluate runs/nano {PHOTOGRAPHS} --before runs/nano/semantic/model --out exported/evaluation")
    for name in ("mllm", "several"):
        digests.run(f"chat {SCENES}/scene-08.jpg 'What is it?' --model runs/{name} --max-new-tokens 12")
        digests.run(f"generate 'a dog' --model runs/{name} --seeds 2 --out exported/drawn_by_{name}")
    digests.folder("exported", "unitok")


def recipes(digests: Digests) -> None:
    """Every value of every recipe."""
    for name, recipe in (RECIPES | UNITOK_RECIPES | LANGUAGE_RECIPES).items():
        digests.add(f"recipes/{name}", json.dumps(asdict(recipe()), default=str))


def tables(digests: Digests) -> None:
    """The tables of experiments, drawn again from the results that are kept."""
    shutil.copytree(TABLES, "tables", ignore=shutil.ignore_patterns("*.md"))
    for line in run("ablate").splitlines():
        if not line.startswith("mllm"):  # whose results were made with other settings than the recipes now have
            digests.run(f"ablate {line.split()[0]} --results tables")


PARTS = (
    tokenizer,
    language_model_tokenizer,
    language_model,
    train_tokenizers,
    train_language_models,
    train_teacher,
    trained,
    released_unitok,
    recipes,
    tables,
)


def main() -> int:
    """Find the digests, write them, compare them."""
    out, *before = (Path(argument).resolve() for argument in sys.argv[1:])
    torch.set_num_threads(1)
    print(f"digests of {semhitok.__file__}", file=sys.stderr)
    digests, begun, back = Digests(), time.perf_counter(), Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)  # paths that are printed or written down are relative, hence the same every time
        os.environ["SEMHITOK_CACHE"] = "cache"
        write_material(Path("cache"))
        digests.folder("scenes")
        for part in PARTS:
            started = time.perf_counter()
            part(digests)
            print(f"{part.__name__}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        os.chdir(back)
    out.write_text(json.dumps(digests.found, indent=1, sort_keys=True), encoding="utf-8")
    spent = f"{time.perf_counter() - begun:.0f} s, {time.process_time():.0f} s of processor time"
    print(f"{len(digests.found)} digests in {spent}: {out}")
    earlier = json.loads(before[0].read_text(encoding="utf-8")) if before else digests.found
    different = [
        name for name in sorted(earlier.keys() | digests.found) if earlier.get(name) != digests.found.get(name)
    ]
    print("\n".join(f"differs: {name}" for name in different) or "nothing differs")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
