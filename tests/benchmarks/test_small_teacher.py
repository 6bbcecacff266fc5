from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.small_teacher import caption_embeddings, small_siglip, train_teacher
from PIL import Image
from transformers import BertConfig, BertModel, BertTokenizerFast, SiglipVisionConfig

from semhitok.data.folder import ImageFolder
from semhitok.teachers import Teacher, TeacherConfig
from semhitok.training.loop import LoopConfig

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "horse", "owl", "in", "front", "of", "grass"]
CAPTIONS = ["a red horse", "an owl in front of grass", "a red horse", "a blue owl in front of a red horse", "owl"]
TINY = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
    "vision_use_head": False,
}


@pytest.fixture
def text_encoder(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(WORDS), **size)).save_pretrained(folder)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index, caption in enumerate(CAPTIONS):
        Image.fromarray(random.integers(0, 256, (20, 16, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        (folder / f"{index}.json").write_text(json.dumps({"caption": caption}))
    return folder


def signal(patch_size: int = 8) -> Teacher:
    torch.manual_seed(0)
    return Teacher(TeacherConfig(SiglipVisionConfig(**TINY | {"patch_size": patch_size}), image_size=16, layer=-1))


def test_a_caption_s_embedding_is_the_mean_of_its_tokens_alone(text_encoder: Path):
    embeddings = caption_embeddings(CAPTIONS, text_encoder, batch_size=3)
    tokenizer, model = BertTokenizerFast.from_pretrained(text_encoder), BertModel.from_pretrained(text_encoder).eval()
    assert embeddings.shape == (5, 8)
    for caption, embedding in zip(CAPTIONS, embeddings, strict=True):
        with torch.no_grad():
            mean = model(**tokenizer(caption, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
        torch.testing.assert_close(embedding, mean / mean.norm())


def test_a_teacher_is_trained_and_can_be_loaded(images: Path, text_encoder: Path, tmp_path: Path):
    small = small_siglip()
    loop = LoopConfig(steps=4, batch_size=4, log_every=1)
    recipe = replace(small, backbone=TINY, images=5, loop=loop, task=replace(small.task, contrastive_from=0.5))
    options = {"signal": signal(), "text_encoder": text_encoder, "device": torch.device("cpu"), "report": print}
    state = train_teacher(recipe, ImageFolder(images), tmp_path / "run", **options)
    assert (state.step, state.samples) == (4, 16)
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert ["loss/contrastive" in entry for entry in log[:4]] == [False, False, True, True]
    teacher = Teacher.from_pretrained(tmp_path / "run" / "model", layer=-1)
    assert teacher(torch.zeros(1, 3, 16, 16)).shape == (1, 4, 16)
    # The cached starting signal serves a second run, and is refused for other images.
    assert train_teacher(recipe, ImageFolder(images), tmp_path / "run", **options).finished
    (images / "4.png").unlink()
    with pytest.raises(ValueError, match="different data"):
        train_teacher(recipe, ImageFolder(images), tmp_path / "run", **options)


def test_what_does_not_fit_is_one_sentence(images: Path, text_encoder: Path, tmp_path: Path):
    recipe = replace(small_siglip(), backbone=TINY, images=5)
    options = {"text_encoder": text_encoder, "device": torch.device("cpu")}
    with pytest.raises(ValueError, match=r"grid \(4, 4\) differs from the tower's \(2, 2\) at 16 px"):
        train_teacher(recipe, ImageFolder(images), tmp_path / "run", signal=signal(patch_size=4), **options)
    with pytest.raises(ValueError, match="no text encoder at"):
        caption_embeddings(["a"], tmp_path)
    (images / "2.json").unlink()
    with pytest.raises(ValueError, match="an image has no caption"):
        train_teacher(recipe, ImageFolder(images), tmp_path / "run", signal=signal(), **options)
