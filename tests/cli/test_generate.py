"""``semhitok generate``: grids of prompts and seeds, benchmarks that resume, and what cannot be drawn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.mllm.tiny_mllm import CONTEXT, mllm, processor

from semhitok.evaluation.text_to_image import prompt_sets
from semhitok.inference.image_generator import stretches
from semhitok.mllm import Sampling, SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor

PROMPTS = ["a red cat", "draw two blue house and the big dog"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("generate") / "tiny")


def save(folder: Path, **changes) -> Path:
    model = mllm(**changes)
    model.save_pretrained(folder)
    processor(model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def parts(saved) -> tuple[SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor]:
    model = SemHiTokForConditionalGeneration.from_pretrained(saved).eval()
    return model, SemHiTokMLLMProcessor.from_pretrained(saved)


def drawn(parts, prompt: str, **options) -> bytes:
    """By hand, one image alone."""
    model, processing = parts
    with torch.no_grad():
        ids = model.generate_images(**processing(text=prompt), **options)
        (image,) = processing.image_processor.postprocess(model.image_tokenizer.decode(ids))
    return image.tobytes()


def pixels_of(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_may_say_how_its_images_are_sampled(run, tmp_path):
    save(tmp_path / "model", image_guidance=2.0, image_top_k=3)
    common = ["generate", *PROMPTS, "--seeds", 2, "--model"]
    assert "guidance 2\n" in run(*common, tmp_path / "model", "--out", tmp_path / "own").out
    run(*common, save(tmp_path / "other"), "--guidance", 2, "--top-k", 3, "--out", tmp_path / "given")
    for row in range(2):
        name = f"images/{row:03d}_seed1.png"
        assert pixels_of(tmp_path / "own" / name) == pixels_of(tmp_path / "given" / name)
    run(*common, tmp_path / "model", "--top-k", 0, "--out", tmp_path / "all")
    run(*common, tmp_path / "other", "--guidance", 2, "--out", tmp_path / "plain")
    assert pixels_of(tmp_path / "all" / name) == pixels_of(tmp_path / "plain" / name)
    assert pixels_of(tmp_path / "all" / name) != pixels_of(tmp_path / "own" / name)


def test_each_image_is_that_of_its_prompt_and_seed(run, saved, parts, tmp_path):
    outcome = run("generate", *PROMPTS, "--model", saved, "--seeds", 3, "--seed", 5, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert outcome.out == (
        f"2 prompts, 3 images each, guidance 3\nwrote {tmp_path / 'out' / 'grid.png'}\nwrote {tmp_path / 'out' / 'images'}\n"
    )
    names = [f"images/{row:03d}_seed{seed}.png" for row in (0, 1) for seed in (5, 6, 7)]
    assert sorted(bytes_of(tmp_path / "out")) == ["grid.png", *names]
    found = [pixels_of(tmp_path / "out" / name) for name in names]
    wanted = [drawn(parts, text, guidance=3.0, sampling=Sampling(seed=seed)) for text in PROMPTS for seed in (5, 6, 7)]
    assert found == wanted
    assert len(set(found)) == 6


def test_the_grid_shows_the_images_by_prompt_and_seed(run, saved, tmp_path):
    run("generate", *PROMPTS, "--model", saved, "--seeds", 3, "--out", tmp_path)
    tile, step = 160, 168  # 32 px, five times; 8 px between them
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (24 + 260 + 3 * step - 8 + 24, 24 + 70 + 2 * step - 8 + 24)
        for row in (0, 1):
            left, top = 24 + 260, 24 + 70 + row * step
            label = grid.crop((24, top, left, top + tile)).convert("L")
            assert label.getextrema()[0] < 100, "the prompt is written beside its row"
            for column in range(3):
                box = (left + column * step, top, left + column * step + tile, top + tile)
                with Image.open(tmp_path / "images" / f"{row:03d}_seed{column}.png") as image:
                    wanted = image.resize((tile, tile), Image.Resampling.NEAREST)
                assert grid.crop(box).tobytes() == wanted.tobytes()


def test_seeds_reproduce_and_batches_change_nothing(run, saved, tmp_path):
    arguments = ["generate", *PROMPTS, "--model", saved, "--seeds", 3]
    for name, batch_size in (("first", 16), ("again", 16), ("ones", 1), ("fours", 4)):
        assert run(*arguments, "--batch-size", batch_size, "--out", tmp_path / name).code == 0
    wanted = bytes_of(tmp_path / "first")
    assert all(bytes_of(tmp_path / name) == wanted for name in ("again", "ones", "fours"))
    run(*arguments, "--seed", 2, "--out", tmp_path / "later")
    later = bytes_of(tmp_path / "later")
    assert later["images/001_seed2.png"] == wanted["images/001_seed2.png"]


def test_without_temperature_it_is_generate_of_transformers(run, saved, parts, tmp_path):
    options = ["--temperature", 0, "--seeds", 2, "--guidance", 2.5, "--model", saved, "--out", tmp_path]
    assert run("generate", PROMPTS[0], *options).code == 0
    model, processing = parts
    with torch.no_grad():
        ids = model.generate(**processing(text=PROMPTS[0]), generation_mode="image", guidance_scale=2.5)
        (wanted,) = processing.image_processor.postprocess(model.decode_image_tokens(ids))
    found = [pixels_of(tmp_path / "images" / f"000_seed{seed}.png") for seed in (0, 1)]
    assert found == [wanted.tobytes()] * 2


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--guidance", 1], {"guidance": 1.0, "sampling": Sampling()}),
        (["--top-k", 2], {"guidance": 3.0, "sampling": Sampling(top_k=2)}),
        (["--top-p", 0.3], {"guidance": 3.0, "sampling": Sampling(top_p=0.3)}),
        (["--temperature", 0.5], {"guidance": 3.0, "sampling": Sampling(temperature=0.5)}),
    ],
)
def test_options_reach_the_model(run, saved, parts, tmp_path, arguments, options):
    assert run("generate", PROMPTS[1], "--seeds", 1, *arguments, "--model", saved, "--out", tmp_path).code == 0
    found = pixels_of(tmp_path / "images" / "000_seed0.png")
    assert found == drawn(parts, PROMPTS[1], **options)
    assert found != drawn(parts, PROMPTS[1], guidance=3.0, sampling=Sampling())


def test_stream_shows_rows_as_they_come(run, saved, tmp_path, monkeypatch):
    arguments = ["generate", *PROMPTS, "--model", saved, "--seeds", 2]
    run(*arguments, "--out", tmp_path / "whole")
    grids = []
    stock = prompt_sets.save_image

    def spy(image: Image.Image, path: Path) -> None:
        stock(image, path)
        if path.name == "grid.png":
            grids.append(pixels_of(path))

    monkeypatch.setattr(prompt_sets, "save_image", spy)
    assert run(*arguments, "--stream", "--out", tmp_path / "out").code == 0
    assert len(grids) == 2 * 4 + 1, "four rows of tokens for each prompt, and all of it at the end"
    with Image.open(tmp_path / "whole" / "grid.png") as image:
        size, wanted = image.size, image.convert("RGB").tobytes()
    early = Image.frombytes("RGB", size, grids[1])
    assert grids[-1] == wanted
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    left, top, tile = 24 + 260, 24 + 70, 160
    lower = early.crop((left, top + 80, left + tile, top + tile))
    assert lower.getcolors() == [(tile * 80, (128, 128, 128))], "two of four rows are there, the rest is grey"
    second = early.crop((left, top + tile + 8, left + tile, top + 2 * tile + 8))
    assert len(second.getcolors() or []) == 1, "nothing of the second prompt yet"
    upper = early.crop((left, top, left + tile, top + 80))
    assert len(upper.getcolors(tile * 80) or []) > 100


def geneval(folder: Path) -> Path:
    lines = [{"tag": "colors", "prompt": text, "include": []} for text in PROMPTS]
    (folder / "evaluation_metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "evaluation_metadata.jsonl"


def test_geneval_resumes(run, saved, tmp_path):
    arguments = ["generate", "--prompts", geneval(tmp_path), "--layout", "geneval", "--model", saved]
    outcome = run(*arguments, "--out", tmp_path / "whole")
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"generated 8 of 8 images\nwrote {tmp_path / 'whole'} in the layout geneval\n"
    whole = bytes_of(tmp_path / "whole")
    samples = [f"0000{index}/samples/000{sample}.png" for index in (0, 1) for sample in range(4)]
    metadata = ["00000/metadata.jsonl", "00001/metadata.jsonl"]
    assert sorted(whole) == sorted([*samples, *metadata, "settings.json"])
    assert len({whole[name] for name in samples}) == 8
    assert json.loads(whole[metadata[1]])["prompt"] == PROMPTS[1]
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    for name in ("00000/samples/0002.png", "00001/samples/0000.png", "00001/samples/0003.png"):
        (tmp_path / "out" / name).unlink()
    outcome = run(*arguments, "--batch-size", 3, "--out", tmp_path / "out")
    assert "generated 3 of 8 images, 5 were there already" in outcome.out
    assert bytes_of(tmp_path / "out") == whole
    run(*arguments, "--batch-size", 1, "--out", tmp_path / "ones")
    assert bytes_of(tmp_path / "ones") == whole
    run(*arguments, "--seeds", 1, "--seed", 1, "--out", tmp_path / "seed")
    other = bytes_of(tmp_path / "seed")["00000/samples/0000.png"]
    assert other not in whole.values(), "another seed is no other number of the same set"


def test_the_other_layouts(run, saved, tmp_path):
    (tmp_path / "m.json").write_text(json.dumps({"f0": {"prompt": PROMPTS[0], "category": "animals"}}))
    (tmp_path / "g.json").write_text(json.dumps({"00000": {"prompt": PROMPTS[1]}}))
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
    wanted = {
        "mjhq": ("m.json", ["animals/f0.png"]),
        "genai-bench": ("g.json", ["00000.jpeg"]),
        "plain": ("p.txt", ["00000.png", "00001.png"]),
    }
    for layout, (file, names) in wanted.items():
        options = ["--prompts", tmp_path / file, "--layout", layout, "--out", tmp_path / layout]
        assert run("generate", *options, "--model", saved).code == 0
        assert sorted(bytes_of(tmp_path / layout)) == [*names, "settings.json"]


def test_a_folder_of_other_settings_is_refused(run, saved, tmp_path):
    (tmp_path / "p.txt").write_text(PROMPTS[0])
    arguments = ["generate", "--prompts", tmp_path / "p.txt", "--out", tmp_path / "out"]
    assert run(*arguments, "--model", saved).code == 0
    before = bytes_of(tmp_path / "out")
    other = save(tmp_path / "other", adapter="single")
    for options, said in (
        (["--model", saved, "--guidance", 2], "guidance is 3.0 there and 2.0 now"),
        (["--model", saved, "--top-k", 9], "top_k is 0 there and 9 now"),
        (["--model", saved, "--seed", 1], "seed is 0 there and 1 now"),
        (["--model", other], "model is"),
    ):
        outcome = run(*arguments, *options)
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1
        assert said in outcome.err
        assert bytes_of(tmp_path / "out") == before
    copy = shutil.copytree(saved, tmp_path / "copy")
    assert run(*arguments, "--model", copy).code == 0, "the same model at another place"
    outcome = run("generate", "a cat", "--model", saved, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "holds the images of a benchmark" in outcome.err


LONG = "a " * (CONTEXT - 17)  # with the image begin id one more than leaves room for 16 tokens


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "pass prompts in quotation marks"),
        (["a cat", "--prompts", "p.txt"], 2, "not from both"),
        (["a cat", " "], 2, "prompt 2 is empty"),
        (["a cat", "--guidance", "0"], 2, "guidance must be above 0 (1 is none), got 0.0"),
        (["a cat", "--guidance", "-2"], 2, "guidance must be above 0"),
        (["a cat", "--top-p", "1.5"], 2, "top_p must lie in (0, 1], got 1.5"),
        (["a cat", "--layout", "mjhq"], 2, "--layout mjhq needs a file of prompts"),
        (["--prompts", "p.txt", "--stream"], 2, "--stream works with prompts from the command line"),
        (["--prompts", "p.txt", "--seeds", "4"], 1, "the layout plain has one image for each prompt, got 4"),
        (["--prompts", "nosuch.txt"], 1, "no such file: nosuch.txt"),
        (["--prompts", "p.txt", "--layout", "geneval"], 1, "p.txt: line 1 must be a JSON object"),
        (["a cat", LONG + "a"], 1, f"prompt 2 has {CONTEXT - 15} tokens, but the context of {CONTEXT} leaves 144"),
        (["a cat", LONG * 2], 1, "prompt 2: a text has"),
        (["a \ufdd0 cat"], 1, "prompt 1: the text holds a noncharacter of Unicode"),
        (["--prompts", "long.txt"], 1, f"long.txt: prompt 00001 has {CONTEXT - 15} tokens"),
    ],
)
def test_bad_input(run, saved, tmp_path, monkeypatch, arguments, code, said):
    (tmp_path / "p.txt").write_text("a cat")
    (tmp_path / "long.txt").write_text(f"a cat\n{LONG} a\n")
    monkeypatch.chdir(tmp_path)
    outcome = run("generate", *arguments, "--model", saved, "--out", "out")
    assert outcome.code == code
    assert outcome.err.count("\n") == 1
    assert said in outcome.err
    assert outcome.out == ""
    assert not (tmp_path / "out").exists()


def test_the_longest_prompt_that_leaves_room(run, saved, tmp_path):
    outcome = run("generate", LONG, "--seeds", 1, "--model", saved, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err


def test_other_bad_arguments(run, saved, checkpoint, tmp_path):
    outcome = run("generate", "--prompts", tmp_path / "p.txt", "--layout", "coco", "--model", saved)
    assert outcome.code == 2
    assert "geneval" in outcome.err
    outcome = run("generate", "a cat", "--model", checkpoint, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert f"{checkpoint} holds only an image tokenizer" in outcome.err
    assert run("generate", "a cat", "--seeds", 0, "--model", saved).code == 2


def test_stretches_of_seeds():
    assert list(stretches([4, 5, 6, 4, 5, 9, 10, 10])) == [(0, 3), (3, 5), (5, 7), (7, 8)]
    assert list(stretches([7])) == [(0, 1)]


def test_help(run):
    outcome = run("generate", "--help")
    assert outcome.code == 0
    assert "None" not in outcome.out
    assert "``" not in outcome.out
    assert all(
        option in outcome.out for option in ("PROMPT", "--guidance", "--seeds", "--prompts", "--layout", "--stream")
    )
