"""The language model trains from token files and never sees an image; what does not fit is refused before the first step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.records_on_disk import scene, write_scenes
from tests.runs.test_language import place, run, shrunk  # noqa: F401
from tests.tiny import tiny_model

from semhitok.data.record_sources import RecordTars, open_records
from semhitok.data.shards import find_shards
from semhitok.data.token_records import TokenRecords
from semhitok.recipes import LANGUAGE_RECIPES
from semhitok.runs.language_data import pretokenized
from semhitok.runs.pretokenize import Reading, tokenize_shards
from semhitok.tokenizers import SemHiTokModel

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token files of scenes, whose images are gone."""
    folder = tmp_path_factory.mktemp("tokens")
    write_scenes(folder / "scenes", 24, broken=(5,))
    list(tokenize_shards(find_shards(folder / "scenes"), folder / "ids", tiny_model(), Reading(batch_size=8)))
    return folder / "ids"


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """No image is decoded and none is encoded."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("an image was looked at")

    monkeypatch.setattr(SemHiTokModel, "encode", refuse)
    monkeypatch.setattr("semhitok.data.records.load_image", refuse)


@pytest.mark.parametrize("name", ["mllm_nano", "llava_v15"])
def test_training_from_tokens_sees_no_image(place: Path, tokens: Path, tmp_path: Path, blind: None, name: str):  # noqa: F811
    recipe = shrunk(LANGUAGE_RECIPES[name](), place, own=name == "mllm_nano")
    state, lines = run(recipe, tokens, tmp_path)
    assert state.finished
    logged = [json.loads(line) for line in (tmp_path / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert {"loss/text"} <= set().union(*logged)
    assert sum(entry["bad_records"] for entry in logged) == 0  # scenes without questions are left out before
    assert not any("tokenizing" in line for line in lines)


@pytest.mark.parametrize("kind", ["caption", "text_to_image", "chat"])
def test_the_records_are_those_of_the_tars(tokens: Path, tmp_path: Path, kind: Any):
    tokenizer = tiny_model()
    tars = open_records(write_scenes(tmp_path / "scenes", 24, broken=(5,)), kind)
    assert isinstance(tars, RecordTars)
    wanted = pretokenized(tars, tokenizer, "f", "crop", tmp_path / "cache", print)
    found = open_records(tokens, kind)
    assert isinstance(found, TokenRecords)
    kept = [index for index in range(24) if index != 5 and (kind != "chat" or scene(index)["qa"])]
    assert len(found) == len(kept)
    for place_, index in enumerate(kept):
        ours, theirs = found.read(place_, 7), wanted.read(index, 7)
        assert (ours.kind, ours.text, ours.turns) == (theirs.kind, theirs.text, theirs.turns)
        assert np.array_equal(ours.pictures[0].ids, theirs.pictures[0].ids)
    order = found.order(3)
    assert sorted(order.indices(0, len(found))) == list(range(len(found)))


def test_ids_of_another_tokenizer_are_refused_before_the_first_step(place: Path, tokens: Path, tmp_path: Path):  # noqa: F811
    tiny_model(seed=1).save_pretrained(tmp_path / "other")
    recipe = shrunk(LANGUAGE_RECIPES["mllm_nano"](), place, tokenizer=str(tmp_path / "other"))
    with pytest.raises(
        ValueError, match=r"its ids come from the tokenizer \w+, this model has \w+: tokenize the images again"
    ):
        run(recipe, tokens, tmp_path / "run")
    recipe = shrunk(LANGUAGE_RECIPES["llava_v15"](), place, own=False, continuous=True)
    with pytest.raises(ValueError, match="holds ids, but continuous features are computed from images"):
        run(recipe, tokens, tmp_path / "run")


def test_other_parquet_is_refused_in_a_sentence(tokens: Path, tmp_path: Path):
    (file,) = tokens.glob("*.parquet")
    table = pq.read_table(file)

    def refused(content: Any) -> str:
        if isinstance(content, bytes):
            (tmp_path / "a.parquet").write_bytes(content)
        else:
            pq.write_table(content, tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=r"\.parquet: ") as error:
            open_records(tmp_path / "a.parquet", "caption")
        return str(error.value)

    assert "lacks the columns pixel_ids, captions" in refused(table.drop_columns(["pixel_ids", "captions"]))
    assert "says nothing about a tokenizer" in refused(pa.table({"image": [b"x"]}))
    assert "is not a parquet file" in refused(file.read_bytes()[:-10])
    assert "has no records of kind caption" in refused(table.slice(0, 0))
    content = json.loads(table.schema.metadata[b"semhitok"])
    later = table.replace_schema_metadata({b"semhitok": json.dumps(content | {"version": 2}).encode()})
    assert "has version 2 of the format, up to 1 is read" in refused(later)
    other = table.replace_schema_metadata({b"semhitok": json.dumps(content | {"tokenizer": "x"}).encode()})
    pq.write_table(table, tmp_path / "b.parquet")
    pq.write_table(other, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="the files of a folder need the same tokenizer"):
        open_records(tmp_path, "caption")
