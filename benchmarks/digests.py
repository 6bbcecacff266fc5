"""Does a refactoring change anything? Digests of what the commands give, and the losses of every training task.

    python -m benchmarks.digests OUT.json [BEFORE.json]

Writes name -> SHA-256 of a file's content, of what a command prints, or of a tensor; for training also name -> the value of
each step, exactly. Dates, speeds and times are left out. With BEFORE.json every name that differs is printed, and the exit
code is 1 if there is any. Results agree on one machine with one installation only: another processor rounds differently.

Nothing is fetched: networks that stand for fetched ones have random weights, scenes are composed of crops of the example
photographs. Everything goes through the command line but for the few functions that import from elsewhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

# Sums are split differently over another number of threads; all of these are read when torch and others are imported.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HUB_OFFLINE"), "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import h5py
import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageDraw
from safetensors import safe_open
from torch import Tensor
from transformers import BertConfig, BertModel, BertTokenizerFast, SiglipVisionConfig, SiglipVisionModel

import semhitok
from semhitok.cli import main as command_line
from semhitok.recipes import LANGUAGE_RECIPES, RECIPES, UNITOK_RECIPES

EXAMPLES = Path(__file__).parents[1] / "examples"
TABLES = Path(__file__).parents[1] / "docs" / "ablations"
PHOTOGRAPHS, SCENES = Path("examples/photographs"), Path("examples/scenes")

# Sources of scenes by the checksums that mark them as fetched; what is found in them is made up.
CUTOUTS = ("emoji-datasource-google", "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438")
BACKGROUNDS = ("mate-backgrounds", "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04")
THINGS = {
    "DOG": "animal-mammal", "OWL": "animal-bird", "HORSE": "animal-mammal", "APPLE": "food-fruit", "CARROT": "food-vegetable",
    "BANANA": "food-fruit", "BUS": "transport-ground", "ROCKET": "transport-air", "VIOLIN": "musical-instrument",
    "DRUM": "musical-instrument", "HAMMER": "tool", "AXE": "tool",
}  # fmt: skip
PLACES = ("Aqua", "Dune", "Storm", "Wood", "Blinds", "Garden")  # of the last two are the test scenes

DATE = re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d UTC)?")
UNSTABLE = {"transformers_version", "software", "_name_or_path"}  # the last is a place on this machine


class Digests:
    """What was found, by name."""

    def __init__(self) -> None:
        self.found: dict[str, str | list[str | None]] = {}

    def add(self, name: str, content: bytes | str) -> None:
        """Keep the digest of bytes, or of a text without its dates."""
        assert name not in self.found, name
        data = DATE.sub("DATE", content).encode() if isinstance(content, str) else content
        self.found[name] = hashlib.sha256(data).hexdigest()

    def tensor(self, name: str, tensor: Tensor) -> None:
        """Type, shape and values."""
        values = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        self.add(name, f"{tensor.dtype} {tuple(tensor.shape)}".encode() + values)

    def file(self, path: Path) -> None:
        """What a file holds: pixels, tensors and JSON whatever their encoding, other files byte for byte."""
        match path.suffix:
            case ".png":
                image = Image.open(path)
                self.add(str(path), f"{image.mode} {image.size}".encode() + image.tobytes())
            case ".npy":
                self.tensor(str(path), torch.from_numpy(np.load(path)))
            case ".safetensors":
                with safe_open(path, framework="pt") as file:
                    self.add(str(path), json.dumps(file.metadata(), sort_keys=True))
                    for name in sorted(file.keys()):
                        self.tensor(f"{path}: {name}", file.get_tensor(name))
            case ".json":
                self.add(str(path), json.dumps(_stable(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True))
            case ".md" | ".txt" | ".jinja":
                self.add(str(path), path.read_text(encoding="utf-8"))
            case _:
                self.add(str(path), path.read_bytes())

    def folder(self, *folders: str) -> None:
        """Every file in it."""
        for path in sorted(path for folder in folders for path in Path(folder).rglob("*") if path.is_file()):
            self.file(path)

    def run(self, command: str, stdin: str = "") -> None:
        """Run a command and keep what it prints."""
        self.add(f"semhitok {command} {stdin}".strip(), run(command, stdin=stdin))

    def training(self, *runs: str) -> None:
        """Log, settings, pictures and model of training runs."""
        for place in map(Path, runs):
            entries = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
            for name in sorted({name for entry in entries for name in entry if "second" not in name}):
                values = [repr(entry[name]) if name in entry else None for entry in entries]
                self.found[f"{place}/metrics.jsonl: {name}"] = values
            self.folder(f"{place}/model", f"{place}/previews")
            if (place / "recipe.json").exists():
                self.file(place / "recipe.json")


def run(command: str, *, code: int = 0, stdin: str = "") -> str:
    """What a command prints; it must end with this exit code."""
    begun = time.perf_counter()
    with redirect_stdout(io.StringIO()) as printed, patch("sys.stdin", io.StringIO(stdin)):
        found = command_line(shlex.split(command))
    print(f"{time.perf_counter() - begun:.1f} s: semhitok {command}", file=sys.stderr, flush=True)
    assert found == code, f"exit code {found}, not {code}, of semhitok {command}"
    return printed.getvalue()


def _stable(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _stable(value) for name, value in content.items() if name not in UNSTABLE}
    return [_stable(value) for value in content] if isinstance(content, list) else content


# What the commands work on


def write_material(cache: Path) -> None:
    """Examples, images with captions, networks with random weights, composed scenes: the same ones every time."""
    shutil.copytree(EXAMPLES, "examples")
    torch.manual_seed(0)
    write_crops(Path("images"), 24)
    write_crops(Path("many"), 104)  # as many as a Fréchet distance needs
    write_networks(cache / "weights")
    write_sources(cache / "sources")
    for name, count in (("train", 60), ("shared", 16)):
        run(f"data scenes scenes/{name} --split {name} --count {count} --size 96 --workers 1 --per-shard 30")


def crops(count: int, width: int, height: int) -> list[Image.Image]:
    """Crops of the example photographs, in turn."""
    random, files, found = np.random.default_rng(0), sorted(PHOTOGRAPHS.glob("*.jpg")), []
    for index in range(count):
        photograph = Image.open(files[index % len(files)]).convert("RGB")
        side = int(random.integers(60, 280))
        left, top = (int(random.integers(0, length - side)) for length in photograph.size)
        found.append(photograph.crop((left, top, left + side, top + side)).resize((width, height)))
    return found


def write_crops(folder: Path, count: int) -> None:
    """PNG files, a caption beside each."""
    folder.mkdir()
    for index, image in enumerate(crops(count, 80, 64)):
        image.save(folder / f"{index:03d}.png")
        words = ("dark", "bright", "small", "wide", "plain")[index % 5], ("photo", "picture", "view")[index % 3]
        (folder / f"{index:03d}.txt").write_text(f"a {words[0]} {words[1]} of place {index % 7}")


def write_networks(folder: Path) -> None:
    """EfficientNet-Lite0 and 2, VGG16 and MiniLM as they are fetched, and a vision tower; with random weights."""
    folder.mkdir(parents=True)
    for variant in ("lite0", "lite2"):
        network = EfficientNet.from_name(f"efficientnet-{variant}")
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, std=0.1)
        torch.save(network.state_dict(), folder / f"efficientnet_{variant}.pth")
    with h5py.File(folder / "vgg16_hed.h5", "w") as file:
        inputs = 3
        for block, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
            for index in range(depth):
                place = f"block{block}/layers/conv2d{f'_{index}' if index else ''}/vars"
                file[f"{place}/0"] = (torch.randn(3, 3, inputs, width) * (2 / (9 * inputs)) ** 0.5).numpy()
                file[f"{place}/1"] = torch.zeros(width).numpy()
                inputs = width
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "an", "and", "two", "of", *map(str.lower, THINGS)]
    (folder / "minilm").mkdir()
    (folder / "minilm" / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "minilm" / "vocab.txt")).save_pretrained(folder / "minilm")
    size: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    BertModel(BertConfig(vocab_size=len(words), **size)).save_pretrained(folder / "minilm")
    tower = SiglipVisionConfig(**size, image_size=64, patch_size=8)
    SiglipVisionModel(tower).save_pretrained("teacher")
    Path("teacher/preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')


def write_sources(folder: Path) -> None:
    """Cut-outs, ellipses of the photographs, and backgrounds, the photographs themselves, as they are fetched."""
    (name, digest), images = CUTOUTS, folder / CUTOUTS[0] / "package/img/google/64"
    images.mkdir(parents=True)
    (folder / name / ".unpacked").write_text(digest)
    entries = []
    for index, ((thing, kind), image) in enumerate(zip(THINGS.items(), crops(len(THINGS), 64, 56), strict=True)):
        mask = Image.new("L", image.size)
        ImageDraw.Draw(mask).ellipse((2, 2, 61, 53), fill=255)
        image.putalpha(mask)
        image.save(images / f"{index}.png")
        names = {"unified": f"1F{index:03}", "name": thing, "image": f"{index}.png", "has_img_google": True}
        entries.append(names | {"category": "Objects", "subcategory": kind})
    (folder / name / "package/emoji.json").write_text(json.dumps(entries))
    (name, digest), images = BACKGROUNDS, folder / BACKGROUNDS[0] / "usr/share/backgrounds/mate/nature"
    images.mkdir(parents=True)
    (folder / name / ".unpacked").write_text(digest)
    for place, photograph in zip(PLACES, sorted(PHOTOGRAPHS.glob("*.jpg")), strict=True):
        shutil.copy(photograph, images / f"{place}.jpg")


# What is looked at


def tokenizer(digests: Digests) -> None:
    """The shipped tokenizer through every command that takes one."""
    for ending in ("npy", "json", "safetensors"):
        digests.run(f"encode {PHOTOGRAPHS} --out shipped/ids.{ending} --batch-size 4")
        digests.run(f"decode shipped/ids.{ending} --out shipped/decoded_{ending}")
    for fit, images in (("crop", ""), ("resize", ""), ("tile", "/chelsea.jpg")):
        digests.run(f"reconstruct {PHOTOGRAPHS}{images} --fit {fit} --out shipped/{fit}")
    digests.run(f"codes {PHOTOGRAPHS} {SCENES} --out shipped/codes")
    digests.run("codes images --by used --top 4 --context 2 --fit resize --out shipped/used")
    for name in ("nano", "mllm_nano"):
        digests.run(f"inspect {name}")
        digests.run(f"inspect {name} --json")
    options = "--probe-train scenes/train --before nano --out shipped/evaluation"
    digests.run(f"evaluate nano {PHOTOGRAPHS} many test=scenes/shared {options}")
    digests.folder("shipped")


@torch.no_grad()
def language_model_tokenizer(digests: Digests) -> None:
    """The tokenizer within the shipped language model, which no command shows by itself."""
    model = semhitok.SemHiTokForConditionalGeneration.from_pretrained("mllm_nano").eval()
    processor = semhitok.TokenizerImageProcessor(size=model.config.tokenizer_config.image_size)
    ids = model.image_tokenizer.encode(processor(sorted(PHOTOGRAPHS.glob("*.jpg")))["pixel_values"]).ids
    digests.tensor("mllm_nano: ids", ids)
    digests.tensor("mllm_nano: pixels", model.image_tokenizer.decode(ids))


def language_model(digests: Digests) -> None:
    """Drawing, answers and the evaluation of the shipped language model."""
    digests.run("generate 'a rabbit' 'two bananas' --seeds 2 --out drawn/seeds")
    digests.run("generate 'a rabbit' 'two bananas' --seeds 2 --temperature 0 --out drawn/greedy")
    options = "--stream --guidance 1 --top-k 50 --top-p 0.9 --seed 3 --out drawn/sampled"
    digests.run(f"generate 'a dog above an owl' --seeds 2 {options}")
    Path("prompts.txt").write_text("a red car\nthree horses\nan owl to the left of a dog\n")
    digests.run("generate --prompts prompts.txt --seeds 1 --out drawn/set")
    for scene in (0, 8):
        for question in ("What kind of thing was put into the picture?", "Is there a dog in the picture?"):
            digests.run(f"chat {SCENES}/scene-0{scene}.jpg '{question}'")
    digests.run(f"chat {SCENES}/scene-02.jpg 'Describe the picture.' --temperature 2 --top-p 0.99 --seed 1")
    digests.run(f"chat {SCENES}/scene-02.jpg 'How many are there?' --more-images {SCENES}/scene-08.jpg")
    turns = [
        "How many taxis are in the picture?",
        "Describe the picture.",
        f"/image {SCENES}/scene-07.jpg",
        "What is it?",
    ]
    digests.run(f"chat {SCENES}/scene-08.jpg", stdin="\n".join([*turns, "Is there a hamburger?"]))
    options = "--train scenes/train --prompts 6 --guidance 1 3 --judge-scenes 40 --out drawn/evaluation"
    digests.run(f"evaluate-mllm scenes/shared {options}")
    digests.folder("drawn")


def steps(*stages: str, count: int = 20, batch: int = 4) -> str:
    """The options for short runs of stages with every step in the log."""
    loops = [f"--{stage}loop" for stage in stages]
    return " ".join(f"{loop}.steps {count} {loop}.batch-size {batch} {loop}.log-every 1" for loop in loops)


def train_tokenizers(digests: Digests) -> None:
    """All stages, the joint one, other quantizers, UniTok; every part of a loss begins within the run."""
    place = "--data images --device cpu --data.workers 0"
    semantic = "--model.semantic-codebook-size 32 --semantic.task.revive-every 4 --semantic.task.revive-below 0.5"
    pixel = "--pixel.task.initialise-step 3 --pixel.task.revive-every 4 --pixel.task.revive-below 0.5"
    pixel += " --pixel.task.adversarial-weight 0.1 --pixel.task.adversarial-start 5"
    late = "--pixel-finetune.task.adversarial-start 5 --decoder.task.adversarial-start 5"
    late += f" --validation {PHOTOGRAPHS} --pixel.loop.evaluate-every 10 --pixel-finetune.loop.accumulation 2"
    loops = steps("semantic.", "pixel.", "pixel-finetune.", "decoder.")
    run(f"train nano {place} --out runs/nano {loops} {semantic} {pixel} {late}")
    digests.training("runs/nano/semantic", "runs/nano/pixel", "runs/nano/pixel-finetune", "runs/nano/decoder")

    joint = "--stage joint --teacher teacher --teacher-image-size 64 --model.concat length --data.flip"
    joint += " --semantic.task.precision fp32 --pixel.task.precision fp32 --data.memory-limit 1"  # a stream
    run(f"train nano {place} --out runs/joint {steps('semantic.', 'pixel.')} {semantic} {pixel} {joint}")
    digests.training("runs/joint/joint")
    for quantizer in ("vanilla", "normalized"):
        options = f"--stage semantic --model.semantic-quantizer {quantizer} --data.flip"
        run(f"train nano {place} --out runs/{quantizer} {steps('semantic.')} {semantic} {options}")
        digests.training(f"runs/{quantizer}/semantic")

    options = "--task.adversarial-weight 0.1 --task.adversarial-start 5 --task.perceptual-weight 0.1"
    options += " --task.initialise-step 3 --task.revive-every 4 --task.revive-below 0.5 --model.codebook-size 16"
    options += f" --text.vocab-size 600 --validation {PHOTOGRAPHS}"
    run(f"train unitok_nano {place} --out runs/unitok {steps('')} {options}")
    digests.training("runs/unitok")


def train_language_models(digests: Digests) -> None:
    """The stages from scratch; low-rank changes on tokens of several codes; continuous features."""
    place = "--data scenes/train --device cpu --records.block-rows 8 --records.workers 0"
    run(f"train mllm_nano {place} --out runs/mllm {steps('align.', 'pretrain.', 'sft.', batch=2)}")
    digests.training("runs/mllm/align", "runs/mllm/pretrain", "runs/mllm/sft")

    single = f"--stages pretrain --adapter single {steps('pretrain.', count=6, batch=2)} --pretrain.mix.caption 1"
    several = "--tokenizer runs/unitok/model --pretrain.task.trained lora --pretrain.task.checkpoint-activations"
    several += " --pretrain.mix.text-to-image 1 --pretrain.described 0.3 --pretrain.row-length 192"
    run(f"train mllm_nano {place} --out runs/several {single} {several} --records.no-pretokenize")
    run(f"train mllm_nano {place} --out runs/continuous {single} --continuous --pretrain.learn answers")
    digests.training("runs/several/pretrain", "runs/continuous/pretrain")


def train_teacher(digests: Digests) -> None:
    """The contrastive task, which no command trains."""
    from benchmarks.teacher_candidates import open_source, small_siglip, train_teacher

    recipe = small_siglip()
    loop = replace(recipe.loop, steps=20, batch_size=4, log_every=1)
    recipe = replace(recipe, images=24, loop=loop, backbone=recipe.backbone | {"num_hidden_layers": 2})
    with redirect_stdout(io.StringIO()):
        train_teacher(recipe, open_source("scenes/train"), Path("runs/teacher"), device=torch.device("cpu"))
    digests.training("runs/teacher")


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


def released_unitok(digests: Digests) -> None:
    """A checkpoint in the released format, converted."""
    from tests.tokenizers.unitok.released import unitok_checkpoint

    torch.save(unitok_checkpoint(), "unitok_tokenizer.pth")
    digests.run("convert unitok unitok_tokenizer.pth converted --dtype bfloat16")
    digests.folder("converted")


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
