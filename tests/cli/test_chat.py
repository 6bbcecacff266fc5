"""``semhitok chat``: one question, conversations through standard input, and what cannot be asked."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tests.mllm.tiny_mllm import CONTEXT, TEXT_SIZE, WORDS, mllm, processor

from semhitok.data.record_parsing import parse_record
from semhitok.data.records import Picture
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.sequences import SequenceBuilder


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder, model = tmp_path_factory.mktemp("chat") / "tiny", mllm()
    with torch.no_grad():  # answers in words: neither ids beyond the text tokenizer's nor special ones but the end
        model.lm_head.weight[4 + len(WORDS) : TEXT_SIZE] = 0
        model.lm_head.weight[[0, 2, 3]] = 0
        model.lm_head.weight[4 : 4 + len(WORDS)] *= 3
    model.save_pretrained(folder)
    processor(model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def parts(saved) -> tuple[SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor]:
    model = SemHiTokForConditionalGeneration.from_pretrained(saved).eval()
    return model, SemHiTokMLLMProcessor.from_pretrained(saved)


def answer(parts, text: str, images: list[Path], tokens: int = 128) -> str:
    """By hand: the template written out, one forward pass over everything for each token."""
    model, processing = parts
    inputs = processing(images=images, text=text)
    ids, _ = model.fill_images(inputs["input_ids"], inputs["pixel_values"])
    length, rows = ids.shape[1], model.vocabulary.text_size
    for _ in range(min(tokens, CONTEXT - length)):
        with torch.no_grad():
            chosen = model(input_ids=ids).logits[:, -1, :rows].argmax(-1, keepdim=True)
        if int(chosen) == 1:
            break
        ids = torch.cat([ids, chosen], dim=1)
    return processing.tokenizer.decode(ids[0, length:].tolist(), skip_special_tokens=True).strip()


def feed(monkeypatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_one_question(run, saved, parts, pictures):
    outcome = run("chat", pictures / "000.png", "what is there", "--model", saved, "--max-new-tokens", 12)
    assert outcome.code == 0, outcome.err
    wanted = answer(parts, "user: <image>what is there\nassistant:", [pictures / "000.png"], 12)
    assert outcome.out == wanted + "\n"
    assert 0 < len(wanted.split()) <= 12
    other = run("chat", pictures / "001.png", "what is there", "--model", saved, "--max-new-tokens", 12).out
    assert other != outcome.out


def test_several_images_come_before_the_question(run, saved, parts, pictures):
    files = [pictures / "000.png", pictures / "003.png", pictures / "001.png"]
    arguments = ["--more-images", *files[1:], "--model", saved, "--max-new-tokens", 10]
    outcome = run("chat", files[0], "what is there", *arguments)
    assert outcome.out.strip() == answer(parts, "user: <image><image><image>what is there\nassistant:", files, 10)


def test_asked_as_in_training(run, saved, parts, pictures, monkeypatch):
    _, processing = parts
    asked = {"qa": [{"question": "is there a cat", "answer": "a dog"}]}
    record = parse_record(asked, "chat", "one", [Picture("one", pictures / "000.png")], 0)
    builder = SequenceBuilder(processing, learn="answers", unconditional=0, max_length=CONTEXT, tokenizer=None)
    (sequence,) = builder(record, 0.5)
    begin = int((sequence.labels_L >= 0).argmax())
    seen = []
    stock = SemHiTokForConditionalGeneration.generate

    def spy(self, **options):
        seen.append(options["input_ids"][0].tolist())
        return stock(self, **options)

    monkeypatch.setattr(SemHiTokForConditionalGeneration, "generate", spy)
    assert run("chat", pictures / "000.png", "is there a cat", "--model", saved).code == 0
    assert seen == [sequence.ids_L[:begin].tolist()]


def test_sampling_follows_the_seed(run, saved, pictures):
    question = ["chat", pictures / "000.png", "what is there", "--model", saved, "--max-new-tokens", 20]
    greedy = run(*question).out
    drawn = [run(*question, "--temperature", 1.5, "--seed", seed).out for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert run(*question, "--temperature", 1.5, "--top-p", 1e-6, "--seed", 3).out == greedy


def test_a_conversation_remembers(run, saved, parts, pictures, monkeypatch):
    image, options = pictures / "000.png", ["--model", saved, "--max-new-tokens", 8]
    feed(monkeypatch, "what is there", "is the cat red", "", "never asked")
    outcome = run("chat", image, *options)
    assert outcome.code == 0
    assert outcome.err == ""
    first = answer(parts, "user: <image>what is there\nassistant:", [image], 8)
    text = f"user: <image>what is there\nassistant: {first}<end>\nuser: is the cat red\nassistant:"
    second = answer(parts, text, [image], 8)
    assert [line.strip() for line in outcome.out.splitlines()] == [first, second]
    assert second != answer(parts, "user: <image>is the cat red\nassistant:", [image], 8), "the history matters"


def test_another_image_begins_anew(run, saved, parts, pictures, monkeypatch):
    feed(
        monkeypatch,
        "what is there",
        f"/image {pictures / 'nosuch.png'}",
        "/image",
        f"/image {pictures / '004.png'}",
        "what is there",
    )
    outcome = run("chat", pictures / "000.png", "--model", saved, "--max-new-tokens", 8)
    assert outcome.code == 0
    said = outcome.err.splitlines()
    assert len(said) == 2
    assert "nosuch.png: cannot be read" in said[0]
    assert "/image needs the path of an image" in said[1]
    wanted = [answer(parts, "user: <image>what is there\nassistant:", [pictures / name], 8) for name in NAMES]
    assert [line.strip() for line in outcome.out.splitlines()] == wanted
    assert wanted[0] != wanted[1]


NAMES = ("000.png", "004.png")


def test_a_conversation_that_outgrows_the_context_begins_anew(run, saved, parts, pictures, monkeypatch):
    long = "the red cat and the blue dog " * 9  # 63 tokens; with image and template 83 of 160
    feed(monkeypatch, long, "what is there", long)
    outcome = run("chat", pictures / "000.png", "--model", saved, "--max-new-tokens", 10)
    assert outcome.code == 0
    assert outcome.err == (
        f"semhitok chat: the conversation would exceed the context of {CONTEXT} tokens, so it starts over with this "
        "question\n"
    )
    lines = [line.strip() for line in outcome.out.splitlines()]
    assert len(lines) == 3
    assert lines[2] == lines[0] == answer(parts, f"user: <image>{long.strip()}\nassistant:", [pictures / "000.png"], 10)


def test_a_bad_question_does_not_end_a_conversation(run, saved, parts, pictures, monkeypatch):
    feed(monkeypatch, "a " * 150, "what is there")
    outcome = run("chat", pictures / "000.png", "--model", saved, "--max-new-tokens", 8)
    assert outcome.code == 0
    said = outcome.err.splitlines()
    assert len(said) == 1
    assert f"leaves no room for an answer in the context of {CONTEXT}" in said[0]
    wanted = answer(parts, "user: <image>what is there\nassistant:", [pictures / "000.png"], 8)
    assert outcome.out.strip() == wanted


def test_a_question_that_leaves_little_room_gets_a_short_answer(run, saved, pictures):
    question = " ".join(["cat"] * (CONTEXT - 18 - 2 - 3))  # image, "user:" and "assistant:", three for the answer
    outcome = run("chat", pictures / "000.png", question, "--model", saved)
    assert outcome.code == 0, outcome.err
    assert 0 < len(outcome.out.split()) <= 3


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nosuch.png", "what"], 1, "nosuch.png: cannot be read"),
        (["text.png", "what"], 1, "text.png: not an image"),
        (["000.png", "what", "--more-images", "nosuch.png"], 1, "nosuch.png: cannot be read"),
        (["000.png", " "], 2, "the question is empty"),
        (["000.png", "what \ufdd0"], 1, "holds a noncharacter of Unicode"),
        (["000.png", "a " * 150], 1, "leaves no room for an answer"),
        (["000.png", "what", "--temperature", "-1"], 2, "temperature must be at least 0, got -1.0"),
        (["000.png", "what", "--top-p", "0"], 2, "top_p must lie in (0, 1], got 0.0"),
    ],
)
def test_bad_input(run, saved, pictures, tmp_path, monkeypatch, arguments, code, said):
    shutil.copy(pictures / "000.png", tmp_path)
    (tmp_path / "text.png").write_text("this is no picture")
    monkeypatch.chdir(tmp_path)
    outcome = run("chat", *arguments, "--model", saved)
    assert outcome.code == code
    assert outcome.err.count("\n") == 1
    assert said in outcome.err
    assert outcome.out == ""


def test_models_that_are_none(run, saved, checkpoint, pictures, tmp_path):
    def fails(model: Path, said: str) -> None:
        outcome = run("chat", pictures / "000.png", "what", "--model", model)
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1
        assert said in outcome.err

    fails(checkpoint, f"{checkpoint} holds only an image tokenizer, but a language model is needed")
    fails(tmp_path / "nosuch", f"no checkpoint at {tmp_path / 'nosuch'}")
    copy = shutil.copytree(saved, tmp_path / "copy")
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:5000])
    fails(copy, f"the checkpoint {copy} is damaged")
    (copy / "model.safetensors").write_bytes(weights)
    (copy / "tokenizer.json").write_text("{")
    fails(copy, f"the processor of {copy} cannot be loaded")
    shutil.copy(saved / "tokenizer.json", copy)
    settings = json.loads((copy / "processor_config.json").read_text())
    (copy / "processor_config.json").write_text(json.dumps(settings | {"visual_size": 63}))
    fails(copy, f"the processor of {copy} belongs to another model")


def test_the_folder_of_a_run_stands_for_its_last_finished_stage(run, saved, pictures, tmp_path):
    question = ["chat", pictures / "000.png", "what is there", "--max-new-tokens", 5, "--model"]
    wanted = run(*question, saved).out
    for stage, model in (("pretrain", saved), ("sft", None)):
        place = tmp_path / "run" / stage / "model"
        place.mkdir(parents=True)
        if model is None:
            (place / "config.json").write_text('{"stages": []}')  # it was interrupted
            continue
        shutil.copytree(model, place, dirs_exist_ok=True)
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(config | {"stages": [stage]}))
    assert run(*question, tmp_path / "run").out == wanted
    assert run(*question, tmp_path / "run" / "pretrain").out == wanted


def test_help(run):
    outcome = run("chat", "--help")
    assert outcome.code == 0
    assert "None" not in outcome.out
    assert "``" not in outcome.out
    assert all(option in outcome.out for option in ("IMAGE", "QUESTION", "--more-images", "--temperature"))
