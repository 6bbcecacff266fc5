"""Drawing from captions: prompts and scores by hand, a perfect judge, and a tiny model from end to end."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from einops import rearrange
from tests.evaluation.scene_tars import COLOURS, SIZE, captions_of, mean_colours, random_scenes, scene, write_scenes
from tests.mllm.tiny_mllm import mllm, processor

from semhitok.data.transforms import to_float
from semhitok.evaluation.text_to_image import generation
from semhitok.evaluation.text_to_image.generation import draw_and_judge, draw_images, reconstruct, score
from semhitok.evaluation.text_to_image.judge import Found, Judge, JudgeHead
from semhitok.evaluation.text_to_image.prompts import Prompt, prompts_of
from semhitok.metrics.frechet import FeatureExtractor, FrechetMetric
from semhitok.mllm import Sampling
from semhitok.scenes.shards import metadata
from semhitok.scenes.truth import read_scenes, truth_of
from semhitok.visualization.guidance_grid import guidance_picture

EXTRACTOR = FeatureExtractor(
    "tiny",
    "mean colours of quarters",
    lambda images: images.unfold(2, 16, 16).unfold(3, 16, 16).mean((-1, -2)).flatten(1),
)


@pytest.fixture(scope="module")
def model():
    return mllm()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("squares"), random_scenes(330, seed=2))


class PerfectJudge:
    """Knows the images of the scenes by heart, and sees nothing in others."""

    fingerprint = "perfect"

    def __init__(self, folder, blind=()):
        scenes = read_scenes(folder, SIZE)
        self.known = {
            image.numpy().tobytes(): [Found(thing.concept, thing.x, thing.y, 1.0) for thing in truth.objects]
            for image, truth in zip(scenes.images, scenes.truths, strict=True)
        }
        self.blind = blind

    def check_knows(self, concepts):
        for concept in concepts:
            if concept in self.blind:
                raise ValueError(f"the judge does not know {concept!r}")

    def find(self, images):
        eight_bit = ((images + 1) * 127.5).round().to(torch.uint8)
        return [self.known.get(image.numpy().tobytes(), []) for image in eight_bit]


def truths(*scenes):
    return [truth_of(metadata(each, []), SIZE, SIZE) for each in scenes]


def test_prompts_are_captions_with_what_they_ask_for():
    alone, pair = scene([("cat", 2, 2)]), scene([("cat", 2, 12), ("dog", 22, 14)])
    crowd = scene([("house", 2, 2), ("house", 22, 2), ("dog", 12, 22)])
    found = prompts_of(truths(alone, scene([]), pair, crowd, alone), 10)
    assert found[0] == Prompt("a cat", "single", 0, (("cat", 1),))
    assert found[1] == Prompt("two houses and a dog", "several", 3, (("house", 2), ("dog", 1)))
    assert found[2] == Prompt(
        "a cat to the left of a dog", "relation", 2, (("cat", 1), ("dog", 1)), ("cat", "left of", "dog")
    )
    assert found[3] == Prompt("a cat", "single", 4, (("cat", 1),))
    assert len(found) == 4
    assert prompts_of(truths(alone, pair), 1) == found[:1]


def test_prompts_are_taken_from_the_captions_and_true_of_the_scene():
    scenes = random_scenes(120, seed=4)
    found = prompts_of(truths(*scenes), 60)
    assert len({prompt.scene for prompt in found}) == len(found) == 60
    counts = {kind: sum(prompt.kind == kind for prompt in found) for kind in ("single", "several", "relation")}
    assert min(counts.values()) >= 15
    words = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}
    for prompt in found:
        assert prompt.text in captions_of(scenes[prompt.scene])
        if prompt.relation is not None:
            first, relation, second = prompt.relation
            assert prompt.text == f"a {first} {words[relation]} a {second}"
            assert prompt.numbers == ((first, 1), (second, 1))
        else:
            names = [thing.concept for thing in scenes[prompt.scene].objects]
            assert dict(prompt.numbers) == {name: names.count(name) for name in names}


def test_scores_by_hand():
    prompts = [
        Prompt("two cats", "several", 0, (("cat", 2),)),
        Prompt("a cat and a dog", "several", 1, (("cat", 1), ("dog", 1))),
        Prompt("a cat above a dog", "relation", 2, (("cat", 1), ("dog", 1)), ("cat", "above", "dog")),
        Prompt("a dog to the left of a cat", "relation", 3, (("dog", 1), ("cat", 1)), ("dog", "left of", "cat")),
    ]
    found = [
        [Found("cat", 0.1, 0.5, 0.9), Found("cat", 0.9, 0.5, 0.8), Found("house", 0.5, 0.5, 0.7)],  # all right
        [Found("dog", 0.1, 0.5, 0.9)],  # one missing
        [Found("cat", 0.5, 0.1, 0.9), Found("dog", 0.5, 0.9, 0.8), Found("dog", 0.1, 0.9, 0.7)],  # a dog too many
        [Found("cat", 0.1, 0.5, 0.9), Found("dog", 0.9, 0.5, 0.8)],  # the wrong way round
    ]
    scores = score(found, prompts)
    assert (scores.objects, scores.number, scores.place) == (6 / 7, 2 / 4, 1 / 2)
    assert (scores.images, scores.relations) == (4, 2)
    assert score(found[:1], prompts[:1]).place is None


def test_a_perfect_judge_and_a_perfect_model(model, folder, monkeypatch):
    scenes = read_scenes(folder, SIZE, bare=False)
    asked = prompts_of(scenes.truths, 30)
    real = to_float(scenes.images[[prompt.scene for prompt in asked]])
    calls = []

    def perfect(model, processor, texts, *, guidance, progress, **options):
        assert texts == [prompt.text for prompt in asked]
        calls.append((guidance, options))
        return real if guidance == 4.0 else torch.zeros_like(real)

    monkeypatch.setattr(generation, "draw_images", perfect)
    report = draw_and_judge(
        model, processor(model), PerfectJudge(folder), folder, prompts=30, seed=7, batch_size=4, top_k=5, top_p=0.9
    )
    assert [guidance for guidance, _ in calls] == [1.0, 2.0, 4.0, 7.0]
    assert all(options == {"seed": 7, "batch_size": 4, "top_k": 5, "top_p": 0.9} for _, options in calls)
    for name in ("real", "guidance 4"):
        scores = report.rows[name]
        assert (scores.objects, scores.number, scores.place) == (1.0, 1.0, 1.0)
    assert report.rows["guidance 2"].objects == 0.0
    shuffled = report.rows["shuffled (guidance 4)"]
    assert 0 < shuffled.objects < 0.8
    assert shuffled.number < 0.5
    assert shuffled.place < 0.5
    assert report.judge["real"].recall == report.judge["real"].place == 1.0
    assert report.rows["real"].frechet is None


def test_images_depend_on_seed_and_prompt_only(model):
    texts = ["a cat", "a big red dog and a cat", "two", "the house"]
    found = [draw_images(model, processor(model), texts, guidance=2.0, seed=5, batch_size=size) for size in (1, 3, 4)]
    for images in found[1:]:
        assert torch.allclose(images, found[0], atol=1e-4)  # another id would change a patch by far more
    assert found[0].shape == (4, 3, SIZE, SIZE)
    inputs = processor(model)(text=texts[2], generation_mode="image")
    ids = model.generate_images(inputs["input_ids"], guidance=2.0, sampling=Sampling(seed=7))
    assert torch.allclose(model.decode_image_tokens(ids)[0], found[0][2], atol=1e-4)
    other = draw_images(model, processor(model), texts, guidance=2.0, seed=6)
    assert (other - found[0]).abs().flatten(1).amax(dim=1).min() > 0.1


def judge_of_noise():
    """Random weights, low thresholds: finds something everywhere, the same in the same image."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = JudgeHead(3, 3, 16)
        torch.nn.init.normal_(head.name.weight)
        torch.nn.init.zeros_(head.name.bias)
    return Judge(head, mean_colours(), sorted(COLOURS), torch.full((3,), 0.5), "noise")


def test_from_end_to_end(model, folder):
    steps = []
    report = draw_and_judge(
        model,
        processor(model),
        judge_of_noise(),
        folder,
        guidances=(1.0, 3.0),
        prompts=100,
        batch_size=50,
        extractor=EXTRACTOR,
        progress=lambda *step: steps.append(step),
    )
    assert list(report.rows)[:4] == ["real", "reconstructed", "guidance 1", "guidance 3"]
    assert list(report.rows)[4] in ("shuffled (guidance 1)", "shuffled (guidance 3)")
    assert ("generating with guidance 3", 100, 100) in steps
    scenes = read_scenes(folder, SIZE, bare=False)
    asked = prompts_of(scenes.truths, 100)
    chosen = [prompt.scene for prompt in asked]
    others = [index for index in range(len(scenes.truths)) if index not in chosen]
    assert report.frechet_reference == len(others)
    real = to_float(scenes.images[chosen])
    drawn = draw_images(model, processor(model), [prompt.text for prompt in asked], guidance=3.0)
    for name, images in (("real", real), ("reconstructed", reconstruct(model, real)), ("guidance 3", drawn)):
        metric = FrechetMetric(EXTRACTOR)
        metric.originals.update(EXTRACTOR.extract(to_float(scenes.images[others])))
        metric.reconstructions.update(EXTRACTOR.extract(images))
        assert report.rows[name].frechet == pytest.approx(metric.result().distance, rel=1e-4)
        assert report.rows[name].objects == score(judge_of_noise().find(images), asked).objects
    assert 0 < report.rows["guidance 3"].objects < 1
    document = json.loads(report.to_json())
    assert document["rows"]["guidance 3"]["images"] == 100
    ratio = report.rows["guidance 1"].objects / report.rows["reconstructed"].objects
    assert document["ratios"]["1"] == pytest.approx(ratio)
    text = report.to_markdown()
    assert f"guidance 1 {ratio:.2f}" in text
    assert text.count("\n| ") == len(report.rows) + 1  # and the rule below the head


def test_bad_input(model, folder, tmp_path):
    def run(**options):
        given = {"prompts": 2, "judge": PerfectJudge(folder), "folder": folder} | options
        return draw_and_judge(model, processor(model), given.pop("judge"), given.pop("folder"), **given)

    with pytest.raises(ValueError, match="prompts must be at least 1, got 0"):
        run(prompts=0)
    with pytest.raises(ValueError, match="guidance must be above 0"):
        run(guidances=(1.0, 0.0))
    with pytest.raises(ValueError, match="at least one guidance"):
        run(guidances=())
    with pytest.raises(ValueError, match="no image has objects with boxes"):
        run(folder=write_scenes(tmp_path / "bare", [scene([])] * 3))
    with pytest.raises(ValueError, match="does not know 'cat'"):
        run(judge=PerfectJudge(folder, blind=("cat",)), prompts=30)
    with pytest.raises(ValueError, match="number of prompts must be at least 1"):
        prompts_of(truths(scene([("cat", 2, 2)])), 0)


def test_every_drawing_is_in_the_picture_pixel_by_pixel():
    images = torch.randint(0, 255, (2, 2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    drawn = {"no guidance": to_float(images[0]), "guidance 4": to_float(images[1])}
    picture = np.array(guidance_picture(drawn, ["a cat", "a very " + "long " * 20 + "dog"], title="title", tile=40))
    for row in range(2):
        for column in range(2):
            enlarged = rearrange(images[column, row], "c h w -> h w c").numpy().repeat(3, axis=0).repeat(3, axis=1)
            places = np.argwhere((picture[:-47, :-47] == enlarged[0, 0]).all(-1))
            hits = [(y, x) for y, x in places if np.array_equal(picture[y : y + 48, x : x + 48], enlarged)]
            assert len(hits) == 1
            assert (hits[0][0] > picture.shape[0] * 0.55) == bool(row)
    with pytest.raises(ValueError, match="guidance 4 has 2 images for 1 prompts"):
        guidance_picture({"guidance 4": drawn["guidance 4"]}, ["a cat"], title="title")
