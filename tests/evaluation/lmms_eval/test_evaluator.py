"""Tasks of local records through lmms-eval's own evaluator, without network."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import lmms_eval
import pytest
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from tests.evaluation.benchmark_model import answered, asked, judging_model, picture, processing, saved, talking_model

from semhitok.evaluation.lmms_eval.answers import answer_likelihoods

NOUNS = ["cat", "dog", "house"]
POPE_SUFFIX = "\nAnswer the question using a single word or phrase."


def write_records(place: Path) -> list[dict]:
    """Questions about existence in POPE's form, as lines of JSON beside the images."""
    records = []
    for index in range(12):
        noun = NOUNS[index % 3]
        records.append(
            {
                "file_name": f"{index // 3}.png",
                "id": str(index),
                "question_id": str(index),
                "question": f"is there a {noun}",
                "answer": "yes" if index % 2 else "no",
                "image_source": f"made_{index // 3}",
                "category": "random",
                "right": index % 3,
            }
        )
    split = place / "test"
    split.mkdir(parents=True)
    for number in range(4):
        picture(number).save(split / f"{number}.png")
    (split / "metadata.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return records


def write_task(place: Path, records: Path, cache: Path, **fields: Any) -> None:
    """A task of local records; JSON is YAML."""
    local = {
        "dataset_path": "imagefolder",
        "dataset_kwargs": {"data_dir": str(records), "cache_dir": str(cache)},
        "test_split": "test",
    }
    (place / f"{fields['task']}.yaml").write_text(json.dumps(local | fields))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("offline")
def test_pope(tmp_path: Path):
    """POPE's own questions, answer processing and metrics on records made here, through lmms-eval's evaluator."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    records = write_records(tmp_path / "records")
    pope = Path(lmms_eval.__file__).parent / "tasks" / "pope" / "pope.yaml"
    write_task(
        tasks,
        tmp_path / "records",
        tmp_path / "cache",
        task="pope_local",
        include=str(pope),
        generation_kwargs={"max_new_tokens": 1, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False},
    )
    conversations = [
        asked(record["question"] + POPE_SUFFIX, picture(index // 3)) for index, record in enumerate(records)
    ]
    model = judging_model(conversations)
    answers = [answered((model, processing()), messages, max_new_tokens=1) for messages in conversations]
    assert set(answers) == {"yes", "no"}
    results = simple_evaluate(
        model="semhitok",
        model_args=f"pretrained={saved(model, tmp_path / 'model')}",
        tasks=["pope_local"],
        batch_size=5,
        device="cpu",
        bootstrap_iters=0,
        task_manager=TaskManager("ERROR", include_path=str(tasks), include_defaults=False, model_name="semhitok"),
    )
    assert results is not None
    pairs = [(answer, record["answer"]) for answer, record in zip(answers, records, strict=True)]
    hits = pairs.count(("yes", "yes"))
    found = results["results"]["pope_local"]
    assert found["pope_accuracy,none"] == sum(answer == gold for answer, gold in pairs) / 12
    assert found["pope_precision,none"] == hits / answers.count("yes")
    assert found["pope_recall,none"] == hits / 6
    assert [sample["filtered_resps"] for sample in results["samples"]["pope_local"]] == [[each] for each in answers]
    assert results["config"]["model_backend"] == "semhitok.evaluation.lmms_eval.model.SemHiTok (chat)"
    assert results["throughput"]["total_gen_tokens"] == 12


@pytest.mark.usefixtures("offline")
def test_ranking_of_given_answers(tmp_path: Path):
    """The most likely choice counts as the model's, though lmms-eval looks for the smallest number."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    records = write_records(tmp_path / "records")
    direct = talking_model(), processing()
    write_task(
        tasks,
        tmp_path / "records",
        tmp_path / "cache",
        task="choices_local",
        output_type="multiple_choice",
        doc_to_visual="image",
        doc_to_text="{{question}}",
        doc_to_choice=NOUNS,
        doc_to_target="right",
        metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    )
    results = simple_evaluate(
        model="semhitok",
        model_args=f"pretrained={saved(direct[0], tmp_path / 'model')}",
        tasks=["choices_local"],
        batch_size=4,
        device="cpu",
        bootstrap_iters=0,
        force_simple=True,
        task_manager=TaskManager("ERROR", include_path=str(tasks), include_defaults=False, model_name="semhitok"),
    )
    assert results is not None
    right = []
    for index, record in enumerate(records):
        messages = asked(record["question"], picture(index // 3))
        losses = answer_likelihoods(*direct, [messages] * 3, NOUNS)
        choice = max(range(3), key=lambda number: losses[number].log_probability)
        right.append(choice == record["right"])
    assert 0 < sum(right) < 12
    assert [sample["acc"] for sample in results["samples"]["choices_local"]] == right
    assert results["results"]["choices_local"]["acc,none"] == sum(right) / 12
    assert results["config"]["model_backend"] == "semhitok.evaluation.lmms_eval.model.SemHiTokSimple (simple)"
