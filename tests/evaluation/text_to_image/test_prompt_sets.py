"""Benchmark prompts to images: each layout is read as its scorer reads it, and an interrupted set ends as a whole one."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from semhitok.evaluation.text_to_image.prompt_sets import PromptSet, draw_prompt_set, image_seeds, read_prompt_set

GENEVAL = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {"tag": "counting", "include": [{"class": "cow", "count": 2}], "exclude": [], "prompt": "a photo of two cows – ü"},
    {"tag": "colors", "include": [{"class": "cup", "count": 1, "color": "red"}], "prompt": "a photo of a red cup"},
]
MJHQ = {
    "0a1b": {"prompt": "a fox in the snow", "category": "animals"},
    "ffee": {"prompt": "a bowl of soup", "category": "food"},
    "0a2c": {"prompt": "an owl", "category": "animals"},
}
GENAI = {
    f"{index:05d}": {"id": f"{index:05d}", "prompt": text, "models": {}} for index, text in enumerate(["a", "b c"])
}


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def geneval_file(folder: Path) -> Path:
    return write(folder / "evaluation_metadata.jsonl", "".join(json.dumps(line) + "\n" for line in GENEVAL))


class Painter:
    """An image of one colour, by prompt and seed; ``stop_after`` calls it fails."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.calls: list[list[tuple[str, int]]] = []
        self.stop_after = stop_after

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        if len(self.calls) == self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(list(zip(prompts, seeds, strict=True)))
        return [Image.new("RGB", (12, 12), colour(*each)) for each in self.calls[-1]]

    @property
    def drawn(self) -> list[tuple[str, int]]:
        return [each for call in self.calls for each in call]


def colour(prompt: str, seed: int) -> tuple[int, int, int]:
    red, green, blue = hashlib.sha256(f"{prompt} {seed}".encode()).digest()[:3]
    return red, green, blue


def draw(prompts: PromptSet, folder: Path, painter: Painter | None = None, **changes) -> int:
    options = {"seed": 0, "batch_size": 2, "settings": {"guidance": 3.0}} | changes
    return draw_prompt_set(prompts, folder, painter or Painter(), **options)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixel(path: str | Path) -> tuple:
    with Image.open(path) as image:
        return image.convert("RGB").getpixel((5, 5))  # type: ignore[return-value]


def test_geneval_is_read_by_its_scorer(tmp_path):
    """As evaluate_images.py does: digits are prompts, each with one JSON object and samples of digits."""
    prompts, painter, out = read_prompt_set(geneval_file(tmp_path), "geneval"), Painter(), tmp_path / "out"
    assert draw(prompts, out, painter) == 12
    found = {}
    for name in os.listdir(out):
        if not (out / name).is_dir() or not name.isdigit():
            continue
        with open(out / name / "metadata.jsonl", encoding="utf-8") as file:
            metadata = json.load(file)
        samples = sorted(os.listdir(out / name / "samples"))
        assert all(re.match(r"\d+\.png", sample) for sample in samples)
        found[name] = (metadata, [pixel(out / name / "samples" / sample) for sample in samples])
    assert sorted(found) == ["00000", "00001", "00002"]
    for index, (metadata, pixels) in enumerate(found[name] for name in sorted(found)):
        assert metadata == GENEVAL[index]
        drawn = [each for each in painter.drawn if each[0] == metadata["prompt"]]
        assert pixels == [colour(*each) for each in drawn]
        assert len({seed for _, seed in drawn}) == 4
    samples = sorted(path.name for path in (out / "00001" / "samples").iterdir())
    assert samples == ["0000.png", "0001.png", "0002.png", "0003.png"]


def test_clean_fid_finds_the_images_of_mjhq_and_no_others(tmp_path):
    """Everything below the folder with the ending of an image or of an array is taken."""
    prompts, painter, out = read_prompt_set(write(tmp_path / "m.json", MJHQ), "mjhq"), Painter(), tmp_path / "out"
    draw(prompts, out, painter)
    endings = ("bmp", "jpg", "jpeg", "pgm", "png", "ppm", "tif", "tiff", "webp", "npy", "JPEG", "JPG", "PNG")
    found = sorted(path for each in endings for path in glob.glob(str(out / "**" / f"*.{each}"), recursive=True))
    assert [os.path.relpath(path, out) for path in found] == ["animals/0a1b.png", "animals/0a2c.png", "food/ffee.png"]
    seeds = dict(painter.drawn)
    for path in found:
        prompt = MJHQ[Path(path).stem]["prompt"]
        assert pixel(path) == colour(prompt, seeds[prompt])


def test_genai_bench_is_read_by_its_scorer(tmp_path):
    """As evaluate.py does: <output_dir>/<gen_model>/<key>.jpeg for each key of the file."""
    file, painter = write(tmp_path / "genai_image.json", GENAI), Painter()
    draw(read_prompt_set(file, "genai-bench"), tmp_path / "outputs" / "ours", painter)
    seeds = dict(painter.drawn)
    for key, entry in json.loads(file.read_text()).items():
        path = os.path.join(tmp_path / "outputs", "ours", f"{key}.jpeg")
        with Image.open(path) as image:
            assert image.format == "JPEG"
        wanted = colour(entry["prompt"], seeds[entry["prompt"]])
        assert max(abs(a - b) for a, b in zip(pixel(path), wanted, strict=True)) <= 3


def test_plain_lines(tmp_path):
    file = write(tmp_path / "prompts.txt", "\ufeffa dog\r\n  a cat \r\na\u2028b\n\n\n")
    prompts = read_prompt_set(file, "plain")
    assert [(each.key, each.text) for each in prompts.prompts] == [
        ("00000", "a dog"),
        ("00001", "a cat"),
        ("00002", "a\u2028b"),
    ]
    draw(prompts, tmp_path / "out")
    images = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert images == ["00000.png", "00001.png", "00002.png"]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_an_interrupted_set_ends_as_a_whole_one(tmp_path, batch_size):
    prompts = read_prompt_set(geneval_file(tmp_path), "geneval")
    whole = Painter()
    draw(prompts, tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        draw(prompts, tmp_path / "out", Painter(stop_after=2))
    assert prompts.missing(tmp_path / "out") == list(range(4, 12))
    (tmp_path / "out" / "00000" / "samples" / "0001.png").unlink()
    (tmp_path / "out" / "00000" / "samples" / "0002.png").write_bytes(b"")  # as a power failure leaves it
    rest = Painter()
    assert draw(prompts, tmp_path / "out", rest, batch_size=batch_size) == 10
    assert rest.drawn == [whole.drawn[index] for index in (1, 2, *range(4, 12))]
    assert max(map(len, rest.calls)) <= batch_size
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    idle = Painter()
    assert draw(prompts, tmp_path / "out", idle) == 0
    assert idle.calls == []


def test_what_is_unfinished_is_no_image(tmp_path, monkeypatch):
    prompts = read_prompt_set(geneval_file(tmp_path), "geneval")
    monkeypatch.setattr(Path, "replace", _killed_at_the_first_image)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # who is killed does not tidy up
    with pytest.raises(KeyboardInterrupt):
        draw(prompts, tmp_path / "out")
    monkeypatch.undo()
    left = [path.name for path in (tmp_path / "out" / "00000" / "samples").iterdir()]
    assert len(left) == 1
    assert not re.match(r"\d+\.png", left[0])
    assert not glob.glob(str(tmp_path / "out" / "**" / "*.png"), recursive=True)
    assert draw(prompts, tmp_path / "out") == 12


def _killed_at_the_first_image(source: Path, target: Path) -> None:
    if target.suffix == ".png":
        raise KeyboardInterrupt
    source.rename(target)


def test_progress_counts_what_was_there(tmp_path):
    prompts = read_prompt_set(geneval_file(tmp_path), "geneval", samples=2)
    seen: list[tuple[int, int]] = []
    draw(prompts, tmp_path / "out")
    (tmp_path / "out" / "00001" / "samples" / "0001.png").unlink()
    draw(prompts, tmp_path / "out", advance=lambda done, total: seen.append((done, total)))
    assert seen == [(6, 6)]


def test_seeds_of_images():
    numbers = range(1000)
    first, second = image_seeds(0, numbers), image_seeds(1, numbers)
    assert len({*first, *second}) == 2000, "a second run shares no random numbers with the first"
    assert image_seeds(0, [7, 12]) == [first[7], first[12]]
    assert [later - sooner for sooner, later in pairwise(first)] == [1] * 999
    assert all(0 <= seed < 2**63 for seed in (*first, *second, *image_seeds(-5, [0])))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed is 0 there and 1 now"),
        ({"settings": {"guidance": 2.0}}, "guidance is 3.0 there and 2.0 now"),
        ({"settings": {"guidance": 3.0, "top_k": 5}}, "top_k is None there and 5 now"),
    ],
)
def test_other_settings_are_refused(tmp_path, changes, message):
    prompts = read_prompt_set(write(tmp_path / "p.txt", "a dog"), "plain")
    draw(prompts, tmp_path / "out")
    before = bytes_of(tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        draw(prompts, tmp_path / "out", **changes)
    assert bytes_of(tmp_path / "out") == before


def test_other_prompts_layouts_and_files_are_refused(tmp_path):
    prompts = read_prompt_set(write(tmp_path / "p.txt", "a dog"), "plain")
    draw(prompts, tmp_path / "out")
    with pytest.raises(ValueError, match="prompts is"):
        draw(read_prompt_set(write(tmp_path / "q.txt", "a cat"), "plain"), tmp_path / "out")
    with pytest.raises(ValueError, match="layout is plain there and mjhq now"):
        draw(read_prompt_set(write(tmp_path / "m.json", MJHQ), "mjhq"), tmp_path / "out")
    with pytest.raises(ValueError, match="holds other files: choose a new or empty folder"):
        draw(prompts, tmp_path)
    (tmp_path / "out" / "settings.json").write_text("[1")
    with pytest.raises(ValueError, match=r"settings\.json cannot be read"):
        draw(prompts, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert draw(prompts, tmp_path / "empty") == 1


@pytest.mark.parametrize(
    ("layout", "content", "message"),
    [
        ("geneval", '{"prompt": "a", "tag": "b"}\nno json\n', "line 2 must be a JSON object with a text under 'tag'"),
        ("geneval", '{"prompt": "a", "tag": "b"}\n\n{"prompt": "a", "tag": "b"}', "line 2 must be a JSON object"),
        ("geneval", '{"tag": "b"}', "line 1 must be a JSON object with a text under 'prompt'"),
        ("geneval", '{"prompt": "a"}', "line 1 must be a JSON object with a text under 'tag'"),
        ("geneval", '["a"]', "line 1 must be a JSON object"),
        ("geneval", "", "holds no prompts"),
        ("plain", "a\n \nb", "line 2 is empty"),
        ("plain", " \n", "holds no prompts"),
        ("mjhq", '{"a": ', "is not JSON"),
        ("mjhq", "[]", "must hold a JSON object with an entry for each prompt, it holds a list"),
        ("mjhq", "{}", "holds no prompts"),
        ("mjhq", '{"a": {"prompt": "b"}}', "key a must be a JSON object with a text under 'category'"),
        ("mjhq", '{"a": {"prompt": " ", "category": "c"}}', "key a must be a JSON object with a text under 'prompt'"),
        ("mjhq", '{"a": {"prompt": "b", "category": "../c"}}', "key a gives '../c', which cannot name a file"),
        ("genai-bench", '{"00000": "a"}', "key 00000 must be a JSON object with a text under 'prompt'"),
        ("genai-bench", '{"../a": {"prompt": "b"}}', "key ../a gives '../a', which cannot name a file"),
        ("genai-bench", '{".a": {"prompt": "b"}}', "key .a gives '.a', which cannot name a file"),
    ],
)
def test_malformed_prompt_files(tmp_path, layout, content, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_prompt_set(write(tmp_path / "file", content), layout)
    assert str(tmp_path / "file") in str(caught.value)


def test_more_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_prompt_set(tmp_path / "nosuch", "plain")
    (tmp_path / "latin").write_bytes("ein Kätzchen".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8 text"):
        read_prompt_set(tmp_path / "latin", "plain")
    with pytest.raises(ValueError, match="the layout mjhq has one image for each prompt, got 4"):
        read_prompt_set(write(tmp_path / "m.json", MJHQ), "mjhq", samples=4)
