"""A tokenizer with a text tower through the whole evaluation; and the words that images come with."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tests.evaluation.dummy import GreyTokenizer
from tests.tiny_unitok import SIZE, text_tokenizer, tiny_unitok
from torch import Tensor

from semhitok.data.sources import ImageFolder
from semhitok.data.transforms import to_float, to_uint8
from semhitok.evaluation import evaluate
from semhitok.evaluation.semantics.labels import ProbeFeatures
from semhitok.evaluation.semantics.language import LanguageMeasurement, captions_of, class_names
from semhitok.evaluation.semantics.zero_shot import TEMPLATES
from semhitok.metrics.probe import probe
from semhitok.types import Embedded, Encoded

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}


class ColourTokenizer:
    """One token of two codes, red over green and blue over green; knows the three words for the three colours."""

    vocab_size, num_tokens, codes_per_token = 8, 1, 2

    def __init__(self) -> None:
        self.config = SimpleNamespace(image_size=16)

    def encode(self, pixel_values: Tensor) -> Encoded:
        mean_B3 = (pixel_values.mean(dim=(2, 3)) + 1) / 2
        ids = (mean_B3[:, [0, 2]] * self.vocab_size).long().clamp(0, self.vocab_size - 1)
        return Encoded(ids=ids[:, None], grid=(1, 1))

    def decode(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        red_blue = (ids[:, 0] + 0.5) / self.vocab_size * 2 - 1
        return red_blue[:, [0, 0, 1], None, None].expand(-1, 3, 16, 16)

    def embed(self, ids: Tensor) -> Embedded:
        return Embedded(semantic=None, pixel=ids.float())

    def image_embedding(self, pixel_values: Tensor) -> Tensor:
        return F.normalize(pixel_values.mean(dim=(2, 3)) + 1, dim=-1)

    def text_embedding(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return F.normalize(input_ids.float() + 0.01, dim=-1)


def count_colours(
    text: list[str], *, padding: bool, truncation: bool, split_special_tokens: bool, return_tensors: str
) -> dict[str, Tensor]:
    """A text is how often it names each colour."""
    ids = torch.tensor([[one.count(colour) for colour in COLOURS] for one in text])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def write_colours(folder: Path, names: list[str], *, captions: bool = True) -> ImageFolder:
    """One-coloured scenes; "violet" looks blue. Every image has its own size of object and a speck of another kind."""
    folder.mkdir()
    for index, name in enumerate(names):
        looks = COLOURS.get(name, COLOURS["blue"])
        Image.fromarray(np.full((16, 16, 3), looks, np.uint8)).save(folder / f"{index:02d}.png")
        warm = "warm red colour" if name == "red" else "cold green or blue"
        objects = [
            {"concept": "speck", "category": "other", "box": [0, 0, 2, 2]},
            {"concept": f"{name} wall", "category": warm, "box": [2, 2, 14, 14]},
        ]
        entry: dict = {"objects": objects} | ({"caption": f"a {name} wall"} if captions else {})
        (folder / f"{index:02d}.json").write_text(json.dumps(entry))
    return ImageFolder(folder)


def test_classes_and_captions_come_from_the_images(tmp_path):
    source = write_colours(tmp_path / "walls", ["red", "red", "green", "blue", "violet", "blue"])
    report = evaluate(ColourTokenizer(), {"walls": source}, text_tokenizer=count_colours, batch_size=4)
    scores = report.groups["walls"].language
    assert scores is not None
    assert set(scores.zero_shot) == {"categories", "concepts"}
    concepts = scores.zero_shot["concepts"]
    # "violet wall" is none of the colours that the text side knows, and its image looks blue.
    assert (concepts.top1, concepts.top5, concepts.classes, concepts.images) == (5 / 6, 1.0, 4, 6)
    assert concepts.balanced_accuracy == 3 / 4
    assert concepts.chance_top1 == 1 / 3
    assert scores.zero_shot["categories"].top1 == 1.0
    found = scores.retrieval
    assert found is not None
    assert (found.images, found.texts) == (6, 4)
    assert found.image_to_text.at[1] == 5 / 6
    # Red and green find their images; the blue text finds a violet image as near as the blue ones, and so does violet.
    assert found.text_to_image.at[1] == 2 / 4
    assert found.text_to_image.at[5] == 1.0
    assert found.image_to_text.chance[1] == pytest.approx(1 / 4)
    assert found.text_to_image.chance[1] == pytest.approx((2 + 1 + 2 + 1) / 6 / 4)


def test_the_report_says_all_of_it(tmp_path):
    source = write_colours(tmp_path / "walls", ["red", "red", "green", "blue", "violet", "blue"])
    train = write_colours(tmp_path / "train", ["red", "green", "blue"] * 4)
    report = evaluate(
        ColourTokenizer(), {"walls": source}, text_tokenizer=count_colours, probe_train=train, rate_images=2
    )
    markdown = report.to_markdown()
    assert "| walls | concepts | 83.3 % | 33.3 % | 100.0 % | 100.0 % | 75.0 % | 4 | 6 |" in markdown
    assert "| walls | image to text | 83.3 % (25.0 %) | 100.0 % (100.0 %) | 100.0 % (100.0 %) | 6 / 4 |" in markdown
    assert all(f'"{template}"' in markdown for template in TEMPLATES)
    assert "1 tokens of 2 codes, each vocabulary 8: 6 bits" in markdown
    assert report.bits == 2 * math.log2(8)
    assert "(1 tokens of 2 x 8)" in markdown
    assert "codes per token x" in markdown
    assert "| walls | mean of 2 codebooks | 8 | 6 | 25.0 % | 2 |" in markdown  # perplexities e^H(1/3) and 2
    assert "| walls | worst: codebook 1 |" in markdown
    assert "| walls | joint |" not in markdown
    assert "| walls | image | 100.0 % |" in markdown
    assert set(report.groups["walls"].probe) == {"pixel", "image"}
    content = json.loads(report.to_json())
    assert content["codes_per_token"] == 2
    assert content["groups"]["walls"]["language"]["zero_shot"]["concepts"]["top1"] == 5 / 6
    assert len(content["groups"]["walls"]["codebooks"]["by_codebook"]) == 2


def test_one_code_per_token_and_no_words_leave_the_report_as_it_was(tmp_path):
    source = write_colours(tmp_path / "walls", ["red", "green"])
    report = evaluate(GreyTokenizer(), {"walls": source}, rate_images=2)
    markdown = report.to_markdown()
    assert "Zero-shot" not in markdown
    assert "codebook" not in markdown.split("## Codebooks")[1].split("##")[0].replace("sub-codebooks", "")
    assert "16 tokens, vocabulary 32: 80 bits" in markdown
    assert "tokens x log2(vocabulary)" in markdown
    with pytest.raises(ValueError, match="grey has no text tower"):
        evaluate(GreyTokenizer(), {"walls": source}, text_tokenizer=count_colours, name="grey")


def test_images_without_words_and_single_classes(tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(plain / "a.png")
    red = write_colours(tmp_path / "red", ["red", "red"], captions=False)
    report = evaluate(
        ColourTokenizer(), {"plain": ImageFolder(plain), "red": red}, text_tokenizer=count_colours, rate_images=0
    )
    assert report.groups["plain"].language is None
    assert report.groups["red"].language is None
    assert "Images and texts" not in report.to_markdown()


def test_words_of_images():
    objects = [
        {"concept": "owl", "category": "animal", "box": [0, 0, 9, 9]},
        {"concept": "bell", "category": "music", "box": [0, 0, 3, 3]},
    ]
    assert class_names({"objects": objects}) == {"categories": "animal", "concepts": "owl"}
    assert class_names({"label": "tench"}) == {"classes": "tench"}
    assert class_names({"class": 7}) == {}
    assert class_names({"objects": [], "caption": "a photo"}) == {}
    assert captions_of({"caption": "one", "captions": ["one", "a part"]}) == ["one"]
    assert captions_of({"captions": ["one", "two", " ", 3]}) == ["one", "two"]
    assert captions_of({"caption": None}) == captions_of({"caption": " "}) == captions_of({}) == []
    measurement = LanguageMeasurement()
    measurement.update(torch.eye(2), [{"class": 7}, {}])
    assert measurement.result(ColourTokenizer(), count_colours) is None


def test_unitok_is_probed_on_codes_projected_tokens_and_the_image():
    model = tiny_unitok()
    images = torch.rand(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    metadata = [{"label": "a" if index % 2 else "b"} for index in range(5)] + [{}]
    features = ProbeFeatures()
    with torch.no_grad():
        ids = model.encode(images).ids
        features.update(model, ids, metadata, model.image_embedding(images))
        output = model(images[:5])
        codes = model.quantizer(output.features).codes
        wanted = {
            "pixel": codes.mean(dim=1),
            "projected": model.project_up(codes).mean(dim=1),
            "image": output.image_embedding,
        }
    assert set(features.features) == set(wanted)
    for kind, vectors in wanted.items():
        assert torch.allclose(torch.cat(features.features[kind]), vectors, atol=1e-5), kind


def test_unitok_end_to_end(tmp_path):
    source = write_colours(tmp_path / "walls", ["red", "green", "blue", "red"])
    model = tiny_unitok()
    report = evaluate(
        model, {"walls": source}, text_tokenizer=text_tokenizer(), probe_train=source, rate_images=0, batch_size=3
    )
    group = report.groups["walls"]
    pixel_values = torch.stack(
        [to_float(to_uint8(source.load(index).image.resize((SIZE, SIZE)))) for index in range(len(source))]
    )
    with torch.no_grad():
        embeddings = model.image_embedding(pixel_values)
        ids = model.encode(pixel_values).ids
    assert report.bits == 4 * 4 * 4
    for number, book in enumerate(group.codebooks.by_codebook):
        assert book.usage == len(ids[..., number].unique()) / 16
    assert group.language is not None
    assert set(group.language.zero_shot) == {"categories", "concepts"}
    labels = ["warm red colour", "cold green or blue", "cold green or blue", "warm red colour"]
    by_hand = probe(embeddings, labels, embeddings, labels, train_groups=["red", "green", "blue", "red"])
    assert group.probe["image"].accuracy == by_hand.accuracy
    assert set(group.probe) == {"pixel", "projected", "image"}
