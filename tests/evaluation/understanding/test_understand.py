"""Scenes through the whole evaluation: an oracle that recognises each scene, one that says yes, and a tiny real model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.data.records_on_disk import png, write_tar
from tests.evaluation.scenes_on_disk import made_up_scenes, write_asked_scenes
from tests.mllm.tiny_mllm import image_tokenizer, mllm, processor
from tests.tiny import tiny_model
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from semhitok.evaluation.understanding.understand import UnderstandingReport, understand
from semhitok.mllm import SemHiTokMLLMProcessor, Vocabulary
from semhitok.scenes.compose import NUMBERS
from semhitok.scenes.questions import captions, questions
from semhitok.tokenizers import TokenizerImageProcessor
from semhitok.types import Encoded
from tokenizers import Tokenizer, models, pre_tokenizers

SCENES = made_up_scenes(60)
ASKED = questions(SCENES, 0)
DESCRIPTIONS = [", ".join(captions(scene)) for scene in SCENES]
TOKENS = 2

Reply = Callable[[int, str], str]
"""Number of the scene and the question, empty for a caption, to the answer."""


class Oracle:
    """Stands for a model: recognises scenes by their grey or their captions, and answers as it is told."""

    def __init__(self, reply: Reply, text_tokenizer: Any, text_size: int) -> None:
        self.reply, self.text_tokenizer = reply, text_tokenizer
        self.vocabulary = Vocabulary(text_size, visual_size=256, image_tokens=TOKENS)
        self.config = SimpleNamespace(context_length=200)
        self.device = torch.device("cpu")
        self.image_tokenizer = SimpleNamespace(device=self.device, dtype=torch.float32, encode=self.encode)

    def encode(self, pixel_values: Tensor) -> Encoded:
        grey_B = ((pixel_values.mean(dim=(1, 2, 3)) + 1) * 127.5).round().long()
        return Encoded(ids=grey_B[:, None].repeat(1, TOKENS), grid=(1, TOKENS))

    def generate(self, input_ids: Tensor, **options: Any) -> Tensor:
        assert not options["do_sample"]
        assert options["visual_codes"] is None
        answers = []
        for prompt in input_ids.tolist():
            shown = self.vocabulary.image_end_id in prompt
            answers.append(
                self.text_tokenizer(self.reply(*(self.see(prompt) if shown else self.read(prompt))))["input_ids"]
            )
        length = max(map(len, answers)) + 1
        rows = [[*ids, 1, *[0] * (length - len(ids) - 1)] for ids in answers]
        return torch.cat([input_ids, torch.tensor(rows)], dim=1)

    def see(self, prompt: list[int]) -> tuple[int, str]:
        """The scene of a prompt with an image, and the question."""
        place = prompt.index(self.vocabulary.image_end_id)
        assert prompt[place - 1] == prompt[place - 2]
        text = self.text_tokenizer.decode(prompt[place + 1 :]).removesuffix("assistant:").strip()
        return prompt[place - 1] - self.vocabulary.text_size, text

    def read(self, prompt: list[int]) -> tuple[int, str]:
        """The first scene with the captions that a prompt begins with, and the question."""
        text = self.text_tokenizer.decode(prompt).removeprefix("user:").removesuffix("assistant:").strip()
        found = next(index for index, said in enumerate(DESCRIPTIONS) if text.startswith(said))
        return found, text.removeprefix(DESCRIPTIONS[found]).strip()


def oracle(reply: Reply) -> tuple[Any, SemHiTokMLLMProcessor]:
    """It knows all words that there are."""
    texts = [text for asked in ASKED for each in asked for text in (each.question, each.answer)]
    words = {word for text in [*texts, *(scene.caption for scene in SCENES), *DESCRIPTIONS] for word in text.split()}
    listed = ["<pad>", "<end>", "<unk>", "user:", "assistant:", "nothing", *sorted(words)]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(listed)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    text_tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )
    processing = SemHiTokMLLMProcessor(
        TokenizerImageProcessor(size=16),
        text_tokenizer,
        text_size=len(listed),
        visual_size=256,
        image_tokens=TOKENS,
        context_length=200,
    )
    return Oracle(reply, text_tokenizer, len(listed)), processing


def truth(scene: int, text: str) -> str:
    """What is right, also about questions that belong to other scenes; a list of the things for no question."""
    if not text:
        return SCENES[scene].caption
    own = [each.answer for each in ASKED[scene] if each.question == text]
    if own:
        return own[0]
    shown = [thing.concept for thing in SCENES[scene].objects]
    question = next(each for asked in ASKED for each in asked if each.question == text)
    if question.kind == "existence":
        return "yes" if question.concept in shown else "no"
    return NUMBERS.get(shown.count(question.concept), "nothing") if question.kind == "count" else "nothing"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_asked_scenes(tmp_path_factory.mktemp("asked") / "test", SCENES)


def run(reply: Reply, folder: Path, **options: Any) -> UnderstandingReport:
    model, processing = oracle(reply)
    return understand(model, processing, folder, **({"train_folder": folder, "batch_size": 7} | options))


@pytest.fixture(scope="module")
def perfect(folder: Path) -> UnderstandingReport:
    return run(truth, folder)


def test_an_oracle_is_always_right(perfect: UnderstandingReport):
    assert {share.share for share in perfect.model.accuracy.values()} == {1.0}
    assert {share.standard_error for share in perfect.model.accuracy.values()} == {0.0}
    for scores in perfect.model.existence.values():
        assert (scores.precision, scores.recall, scores.f1, scores.yes, scores.other) == (1.0, 1.0, 1.0, 0.5, 0)
    captions = perfect.model.captions
    assert captions is not None
    assert (captions.precision.share, captions.recall.share, captions.f1, captions.numbers.share) == (1.0,) * 4
    assert captions.captions == perfect.scenes == sum(bool(scene.objects) for scene in SCENES) == 48


def test_all_questions_are_asked(perfect: UnderstandingReport):
    every = [each for asked in ASKED for each in asked]
    kinds = {kind: sum(each.kind == kind for each in every) for kind in ("existence", "count", "position", "category")}
    assert min(kinds.values()) > 0
    assert {kind: perfect.questions[kind] for kind in kinds} == kinds
    for whole, parts in (
        ("existence", ("random", "popular", "adversarial")),
        ("position", ("left or right", "above or below")),
    ):
        found = [perfect.questions[f"{whole}, {part}"] for part in parts]
        assert sum(found) == perfect.questions[whole]
        assert min(found) > 0
    assert perfect.questions == {group: share.total for group, share in perfect.model.accuracy.items()}


def test_captions_say_what_is_asked(perfect: UnderstandingReport):
    told = perfect.in_words
    assert told is not None
    assert {share.share for share in told.accuracy.values()} == {1.0}
    assert told.captions is None


def test_without_captions_nothing_is_told_in_words(tmp_path: Path):
    scene = json.dumps({"objects": [{"concept": "owl"}], "qa": [dataclasses.asdict(each) for each in ASKED[0]]})
    write_tar(tmp_path / "a.tar", [{".png": png(grey), ".json": scene.encode()} for grey in range(2)])
    report = run(lambda scene, text: "yes", tmp_path)
    assert report.in_words is None
    assert "told in words" not in report.to_markdown().lower()


def test_the_other_image_is_that_of_another_scene(perfect: UnderstandingReport):
    """The oracle then answers about the scene half of the asked ones further on."""
    asked = [index for index, scene in enumerate(SCENES) if scene.objects]
    right: dict[str, list[bool]] = {}
    for place, index in enumerate(asked):
        other = asked[(place + 24) % 48]
        for question in ASKED[index]:
            right.setdefault(question.kind, []).append(truth(other, question.question) == question.answer)
    for kind, found in right.items():
        assert perfect.other_image.accuracy[kind].share == pytest.approx(sum(found) / len(found))
    captions = perfect.other_image.captions
    assert captions is not None
    assert captions.f1 < 0.6


def test_the_prior_does_not_look(perfect: UnderstandingReport):
    """It has learned from these very questions, and per concept there are as many yes as no."""
    for group, scores in perfect.prior.existence.items():
        assert scores.accuracy.share == 0.5, group
    for kind in ("count", "position", "category"):
        own = [each for asked in ASKED for each in asked if each.kind == kind]
        assert 1 / 6 < perfect.prior.accuracy[kind].share < 1
        assert perfect.chance[kind] == pytest.approx(
            1 / 2 if kind == "position" else 1 / len({each.answer for each in own})
        )
    assert perfect.prior.captions is not None
    assert perfect.prior.captions.numbers.total == 0


def test_yes_to_everything_is_right_half_of_the_time(folder: Path):
    report = run(lambda scene, text: "yes" if text else "nothing", folder)
    for way in (report.model, report.other_image):
        for scores in way.existence.values():
            assert (scores.accuracy.share, scores.precision, scores.recall, scores.yes) == (0.5, 0.5, 1.0, 1.0)
            assert scores.f1 == pytest.approx(2 / 3)
        assert way.accuracy["count"].share == way.accuracy["position"].share == way.accuracy["category"].share == 0
        assert way.captions is not None
        assert way.captions.f1 == 0
    share = report.model.accuracy["existence"]
    assert share.standard_error == pytest.approx(0.5 / share.total**0.5)


def test_neither_yes_nor_no_is_counted(folder: Path):
    report = run(lambda scene, text: "nothing", folder)
    scores = report.model.existence["existence"]
    assert (scores.accuracy.share, scores.other) == (0.0, report.questions["existence"])


def test_the_report_says_it(perfect: UnderstandingReport):
    markdown = perfect.to_markdown()
    count = perfect.questions["existence"]
    assert f"| existence | {count} | 100.0 ± 0.0 % | 100.0 ± 0.0 % | 50.0 ± " in markdown
    assert "|  | n | model | model, told in words | blind prior | model, another image | chance |" in markdown
    for group in perfect.questions:
        assert f"| {group} | " in markdown
    assert "| captions, F1 of concepts | 48 | 100.0 % |  | " in markdown
    assert "| model | existence | 100.0 ± 0.0 % | 100.0 % | 100.0 % | 100.0 % | 50.0 % | 0 |" in markdown
    widths = {line.count("|") for line in markdown.split("\n\n")[0].splitlines()}
    assert widths == {8}
    assert json.loads(json.dumps(dataclasses.asdict(perfect)))["model"]["accuracy"]["count"]["share"] == 1.0


def test_the_first_scenes_count(folder: Path):
    report = run(truth, folder, limit=21)
    assert report.scenes == sum(bool(scene.objects) for scene in SCENES[:21])
    assert report.questions["existence"] == sum(each.kind == "existence" for asked in ASKED[:21] for each in asked)
    assert report.model.accuracy["existence"].share == 1.0


def test_progress_reaches_the_end(folder: Path):
    seen: dict[str, tuple[int, int]] = {}
    report = run(truth, folder, progress=lambda what, done, total: seen.update({what: (done, total)}))
    asked = sum(len(each) for each in ASKED)
    assert seen == {
        "scenes": (60, 60),
        "training questions": (60, 60),
        "answers": (asked, asked),
        "answers, told in words": (asked, asked),
        "captions": (48, 48),
        "answers, another image": (asked, asked),
        "captions, another image": (48, 48),
    }
    assert report.questions["existence"] > 0


def test_bad_images_are_left_out(tmp_path: Path, folder: Path):
    broken = write_asked_scenes(tmp_path / "broken", SCENES, broken=[3])
    report = run(truth, broken, train_folder=folder)
    assert [entry.key for entry in report.bad] == ["0003"]
    assert report.scenes == 47
    assert report.model.accuracy["existence"].share == 1.0
    assert "1 scenes are left out, their images cannot be read" in report.to_markdown()


def test_a_tiny_model_from_end_to_end(folder: Path):
    model = mllm()
    processing = processor(model)
    report = understand(model, processing, folder, train_folder=folder, limit=6, batch_size=3)
    again = understand(model, processing, folder, train_folder=folder, limit=6, batch_size=64)
    assert report == again
    assert report.scenes == 5
    assert report.model.existence["existence"].other == report.questions["existence"], "its words hold no yes and no no"
    assert all(0 <= share.share <= 1 for share in report.prior.accuracy.values())
    assert report.to_markdown()


def test_bad_input(folder: Path, tmp_path: Path):
    unasked = write_asked_scenes(tmp_path / "unasked", SCENES[:8], asked=False)
    with pytest.raises(ValueError, match="unasked: no scene has questions"):
        run(truth, unasked)
    with pytest.raises(ValueError, match="the training scenes have no questions"):
        run(truth, folder, train_folder=unasked)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        run(truth, tmp_path / "empty")
    for limit in (0, -1):
        with pytest.raises(ValueError, match=f"limit must be at least 1 scene, got {limit}"):
            run(truth, folder, limit=limit)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        run(truth, folder, batch_size=0)
    with pytest.raises(ValueError, match="at least two scenes"):
        run(truth, folder, limit=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"qa": [{"kind": "existence", "answer": "yes", "concept": "owl"}]}, "0000: .*'question'"),
        ({"qa": [{"kind": "colour", "question": "a", "answer": "b", "concept": "c"}]}, "got kind 'colour'"),
        (
            {"qa": [{"kind": "existence", "question": "a", "answer": "b", "concept": "c", "negatives": "rare"}]},
            "negatives 'rare'",
        ),
        ({"objects": [{"category": "animal"}]}, "an object needs its concept"),
    ],
)
def test_bad_questions(tmp_path: Path, fields: dict, message: str):
    write_tar(tmp_path / "a.tar", [{".png": png(0), ".json": json.dumps(fields).encode()}])
    with pytest.raises(ValueError, match=message):
        run(truth, tmp_path)


def test_a_tokenizer_without_its_encoder_side(folder: Path):
    model = mllm(tokenizer=tiny_model(encoder=False))
    assert image_tokenizer().config.encoder
    with pytest.raises(ValueError, match="loaded without its encoder side"):
        understand(model, processor(model), folder, train_folder=folder)
