"""What the commands of ``digests`` work on: examples, images with captions, networks with random weights, composed scenes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from benchmarks.digest_record import run
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageDraw
from transformers import BertConfig, BertModel, BertTokenizerFast, SiglipVisionConfig, SiglipVisionModel

EXAMPLES = Path(__file__).parents[1] / "examples"
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
