"""The plug-in under the installed lmms-eval: found, and asked by hand.

Needs lmms-eval (the development tools install it); without it this module fails, as nothing else would test the plug-in.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import lmms_eval
import pytest
import torch
from lmms_eval.api.instance import Instance
from lmms_eval.models import MODEL_REGISTRY_V2
from lmms_eval.models.model_utils.gen_metrics import get_logged_metrics_history, reset_logged_metrics
from lmms_eval.tasks import TaskManager
from loguru import logger
from PIL import Image
from tests.evaluation.benchmark_model import Model, answered, asked, picture, saved, talking_model

from semhitok.evaluation.lmms_eval import plugin as entry_point
from semhitok.evaluation.lmms_eval.answers import answer_likelihoods
from semhitok.evaluation.lmms_eval.model import SemHiTok, SemHiTokSimple
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor

BENCHMARKS = ["pope", "mme", "seedbench", "gqa", "mmmu_val", "mmbench_en_dev", "mmvet", "vqav2_val", "textvqa_val"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(talking_model(), tmp_path_factory.mktemp("talking"))


@pytest.fixture(scope="module")
def direct(folder: Path) -> Model:
    model = SemHiTokForConditionalGeneration.from_pretrained(folder)
    return model.eval(), SemHiTokMLLMProcessor.from_pretrained(folder)


def plugin(folder: Path, kind: type[SemHiTok] = SemHiTok, batch_size: int = 2) -> SemHiTok:
    return kind(pretrained=str(folder), device="cpu", batch_size=batch_size)


@pytest.fixture
def warnings():
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


DOCS = [
    {"messages": asked("is there a cat", picture(0))},
    {"messages": asked("a <image> and <image> what is there", picture(1), picture(2))},
    {"messages": asked("draw")},
    {"messages": [*asked("what is blue", picture(3)), {"role": "assistant", "content": "a dog"}, *asked("and red")]},
    {"messages": asked("what", picture(4))},
]


def metadata(index: int) -> dict:
    return {"task": "records", "doc_id": index, "repeats": 1}


def messages_of(doc: dict) -> list[dict]:
    return doc["messages"]


def chat_request(index: int, kwargs: dict) -> Instance:
    arguments = (f"context {index}", messages_of, kwargs, index, "records", "test")
    return Instance("generate_until", arguments, 0, metadata(index))


def with_docs(lm: SemHiTok, docs: list[dict]) -> SemHiTok:
    lm.task_dict["records"] = {"test": docs}
    return lm


class Kept:
    """A cache hook that remembers."""

    def __init__(self) -> None:
        self.entries: list[tuple] = []

    def add_partial(self, attribute: str, request: Any, result: Any) -> None:
        self.entries.append((attribute, request, result))


def test_lmms_eval_finds_the_plug_in():
    assert "semhitok" not in str(lmms_eval.__file__)  # our module of the same name does not stand before the package
    (found,) = entry_points(group="lmms_eval.models", name=entry_point.MODEL_ID)
    assert found.load()() == entry_point.manifest()
    assert MODEL_REGISTRY_V2.get_model_class("semhitok") is SemHiTok
    assert MODEL_REGISTRY_V2.get_model_class("semhitok", force_simple=True) is SemHiTokSimple


def test_the_benchmarks_are_known_names():
    tasks = Path(lmms_eval.__file__).parent / "tasks"
    folders = [str(tasks / name.partition("_")[0]) for name in BENCHMARKS]  # all 340 of them take long
    manager = TaskManager("ERROR", include_path=folders, include_defaults=False)
    assert [name for name in BENCHMARKS if name not in manager.all_subtasks] == []
    documented = (Path(__file__).parents[3] / "docs" / "lmms-eval.md").read_text()
    assert [name for name in BENCHMARKS if f"--tasks {name}" not in documented] == []


def test_answers_are_those_of_the_model_in_the_order_of_the_requests(folder: Path, direct: Model):
    lm, hook = with_docs(plugin(folder), DOCS), Kept()
    lm.set_cache_hook(hook)
    reset_logged_metrics()
    # Kinds of generation mixed, so that no batch is a run of requests.
    requests = [chat_request(index, {"max_new_tokens": (4, 9)[index % 2], "until": ["\n\n"]}) for index in range(5)]
    results = lm.generate_until(requests)
    wanted = [
        answered(direct, messages, max_new_tokens=(4, 9)[index % 2])
        for index, messages in enumerate(
            [
                DOCS[0]["messages"],
                [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "a "},
                            {"type": "image", "image": picture(1)},
                            {"type": "text", "text": " and "},
                            {"type": "image", "image": picture(2)},
                            {"type": "text", "text": " what is there"},
                        ],
                    }
                ],
                *[doc["messages"] for doc in DOCS[2:]],
            ]
        )
    ]
    assert [result.text for result in results] == wanted
    assert len(set(wanted)) == 5
    assert [result.token_counts.output_tokens for result in results] == [4, 9, 4, 9, 4]
    assert {entry[1][0]: entry[2] for entry in hook.entries} == {
        f"context {index}": text for index, text in enumerate(wanted)
    }
    assert all(name == "generate_until" and kwargs["max_new_tokens"] in (4, 9) for name, (_, kwargs), _ in hook.entries)
    (metrics,) = get_logged_metrics_history()
    assert metrics["total_gen_tokens"] == 30
    assert metrics["num_requests"] == 5


def test_stop_strings_and_the_models_own_limit(folder: Path, direct: Model):
    lm = with_docs(SemHiTok(pretrained=str(folder), device="cpu", batch_size="3", max_new_tokens=6), DOCS)
    whole = answered(direct, DOCS[0]["messages"], max_new_tokens=6)
    stop = whole.split()[2]
    requests = [chat_request(0, {}), chat_request(0, {"until": stop}), chat_request(0, {"until": ["never", stop]})]
    assert [result.text for result in lm.generate_until(requests)] == [whole, *[whole.split(stop)[0]] * 2]


def test_drawn_answers(folder: Path):
    lm = with_docs(plugin(folder), DOCS)
    requests = [chat_request(index, {"temperature": 2.0, "max_new_tokens": 8}) for index in range(3)]

    def drawn(seed: int) -> list[str]:
        torch.manual_seed(seed)
        return [result.text for result in lm.generate_until(requests)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_what_is_cut_or_means_nothing_is_said_once(folder: Path, warnings: list[str]):
    docs = [*DOCS, {"messages": asked("red " * 500, picture(0))}, {"messages": asked("blue " * 500)}]
    lm = with_docs(plugin(folder), docs)
    lm.generate_until([chat_request(index, {"max_new_tokens": 2, "visual_cot": True}) for index in range(7)])
    assert warnings == [
        "generation arguments that semhitok does not support: visual_cot\n",
        "2 of 7 prompts were truncated on the left to fit a context of 160 tokens\n",
    ]


def test_losses_of_given_answers(folder: Path, direct: Model):
    lm, hook = with_docs(plugin(folder, SemHiTokSimple), [{"image": picture(6), "answer": "a big house"}]), Kept()
    lm.set_cache_hook(hook)
    answers = [" cat", " the red dog", "a big house"]

    def visuals(doc: dict) -> list[Image.Image]:
        return [doc["image"]]

    targets = [*answers[:2], lambda doc: doc["answer"]]
    requests = [
        Instance("loglikelihood", ("is there", target, visuals, 0, "records", "test"), index, metadata(0))
        for index, target in enumerate(targets)
    ]
    wanted = answer_likelihoods(*direct, [asked("is there", picture(6))] * 3, answers)
    pairs = [result.text for result in lm.loglikelihood(requests)]
    for (loss, greedy), likelihood in zip(pairs, wanted, strict=True):
        assert loss == pytest.approx(-likelihood.log_probability, rel=1e-5)
        assert loss > 0
        assert greedy == likelihood.greedy
    assert [entry[1:] for entry in hook.entries] == [
        (("is there", target), pair) for target, pair in zip(targets, pairs, strict=True)
    ]


def next_round(doc: dict, round_idx: int | None = None, previous_output: Any = None, previous_round_info: Any = None):
    """Two questions more, of which the last repeats an answer; for the second document one question is all."""
    if round_idx is None:
        return doc["messages"]
    assert len(previous_output) == round_idx
    assert previous_round_info == (None if round_idx == 1 else f"info {round_idx - 1}")
    if round_idx == 3 or doc is DOCS[2]:
        return None, True, [*previous_output[:-1], previous_output[-1].upper()], None
    return asked(f"what is {previous_output[-1]}", picture(round_idx)), False, None, f"info {round_idx}"


def by_hand(direct: Model, doc: dict) -> list[str]:
    outputs = [answered(direct, doc["messages"], max_new_tokens=3)]
    while len(outputs) < (1 if doc is DOCS[2] else 3):
        following = asked(f"what is {outputs[-1]}", picture(len(outputs)))
        outputs.append(answered(direct, following, max_new_tokens=3))
    return [*outputs[:-1], outputs[-1].upper()]


def test_rounds_of_chat_requests(folder: Path, direct: Model):
    lm, hook = with_docs(plugin(folder), DOCS), Kept()
    lm.set_cache_hook(hook)
    requests = [
        Instance(
            "generate_until_multi_round",
            ("context", next_round, {"max_new_tokens": 3}, index, "records", "test"),
            0,
            metadata(index),
        )
        for index in (0, 2, 4)
    ]
    found = lm.generate_until_multi_round(requests)
    assert found == [by_hand(direct, DOCS[index]) for index in (0, 2, 4)]
    assert [len(outputs) for outputs in found] == [3, 1, 3]
    assert [entry[2] for entry in hook.entries] == found


def test_rounds_of_simple_requests(folder: Path, direct: Model):
    def visuals(doc: dict) -> list[Image.Image]:
        return [part["url"] for part in doc["messages"][0]["content"][:-1]]

    def text(doc: dict, **state: Any) -> tuple:
        messages, ended, outputs, info = next_round(doc, **state)
        content = messages[0]["content"] if messages else [{"text": None}]
        return [part["url"] for part in content[:-1]], content[-1]["text"], ended, outputs, info

    lm = with_docs(plugin(folder, SemHiTokSimple), DOCS)
    requests = [
        Instance(
            "generate_until_multi_round",
            (
                DOCS[index]["messages"][0]["content"][-1]["text"],
                {"max_new_tokens": 3},
                visuals,
                text,
                index,
                "records",
                "test",
            ),
            0,
            metadata(index),
        )
        for index in (0, 2)
    ]
    assert lm.generate_until_multi_round(requests) == [by_hand(direct, DOCS[index]) for index in (0, 2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name": "x", "foo": 1}, "takes the model arguments pretrained, .*, got also foo, model_name"),
        ({"batch_size": "auto"}, "batch_size must be a whole number of at least 1, got 'auto'"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number of at least 1, got 0"),
        ({"dtype": "int8"}, "dtype must be one of auto, float32, bfloat16, float16, got 'int8'"),
        ({"device": "toaster"}, "there is no device 'toaster' on this machine; cpu"),
    ],
)
def test_bad_arguments(folder: Path, arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SemHiTok(**({"pretrained": str(folder)} | arguments))


def test_precision_and_processes(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    lm = SemHiTok.create_from_arg_string(f"pretrained={folder},dtype=bfloat16", {"device": "cpu", "batch_size": "4"})
    assert (lm.rank, lm.world_size, lm.batch_size, lm.device) == (3, 4, 4, torch.device("cpu"))
    assert lm.model.dtype == torch.bfloat16
    assert lm.model.lm_head.weight.dtype == torch.bfloat16
