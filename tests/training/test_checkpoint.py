"""Checkpoints: what goes in comes out, and a folder with a checkpoint's name is whole."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from semhitok.storage.atomic import WriteError
from semhitok.training.checkpoint import CheckpointError, latest, load, save

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
NESTED = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=20, deadline=None)
@given(value=NESTED)
def test_plain_values_come_back_with_their_types(tmp_path_factory, value):
    directory = tmp_path_factory.mktemp("plain")
    back = load(save(directory, 1, {"value": value}))["value"]
    assert repr(back) == repr(value)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]
)
def test_tensors_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype):
    tensor = (torch.arange(12).reshape(3, 4) % 5).to(dtype)
    state = {"a": [tensor, {"b": tensor.t()}], 3: tensor[1:, :2], "scalar": tensor[0, 1], "empty": tensor[:0]}
    back: dict = load(save(tmp_path, 1, state))
    assert list(back) == ["a", 3, "scalar", "empty"]
    for one, other in [
        (back["a"][0], tensor),
        (back["a"][1]["b"], tensor.t()),
        (back[3], tensor[1:, :2]),
        (back["scalar"], tensor[0, 1]),
        (back["empty"], tensor[:0]),
    ]:
        assert one.dtype == dtype
        assert torch.equal(one, other)


def test_an_optimizer_continues_as_if_nothing_happened(tmp_path: Path):
    def build():
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 3)
        return layer, torch.optim.AdamW(layer.parameters(), fused=True)

    def step(layer, optimizer):
        layer(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    layer, optimizer = build()
    step(layer, optimizer)
    path = save(tmp_path, 1, {"layer": layer.state_dict(), "optimizer": optimizer.state_dict()})
    other_layer, other_optimizer = build()
    saved = load(path)
    other_layer.load_state_dict(saved["layer"])
    other_optimizer.load_state_dict(saved["optimizer"])
    step(layer, optimizer)
    step(other_layer, other_optimizer)
    assert torch.equal(layer.weight, other_layer.weight)


def test_the_newest_by_number_counts_and_old_ones_go(tmp_path: Path):
    assert latest(tmp_path / "nowhere") is None
    for step in (9, 10, 100_000_000, 11):
        save(tmp_path, step, {"step": step}, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000010", "step_00000011", "step_100000000"]
    newest = latest(tmp_path)
    assert newest is not None
    assert load(newest) == {"step": 100_000_000}


def test_unfinished_checkpoints_are_ignored_and_cleared_away(tmp_path: Path):
    save(tmp_path, 1, {"step": 1})
    (tmp_path / ".unfinished-step_00000002").mkdir()
    (tmp_path / ".unfinished-step_00000002" / "values.json").write_text("{")
    assert latest(tmp_path) == tmp_path / "step_00000001"
    save(tmp_path, 3, {"step": 3})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000001", "step_00000003"]


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path):
    save(tmp_path, 1, {"value": torch.zeros(2)})
    path = save(tmp_path, 1, {"value": torch.ones(2)})
    assert torch.equal(load(path)["value"], torch.ones(2))
    assert [entry.name for entry in tmp_path.iterdir()] == ["step_00000001"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
@pytest.mark.parametrize(
    "failing", ["training.checkpoint.save_file", "storage.atomic._flush", "storage.atomic._replace"]
)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch, failing: str, error: Exception):
    save(tmp_path, 1, {"value": torch.zeros(2)})

    def full(*_):
        raise error

    monkeypatch.setattr(f"semhitok.{failing}", full)
    with pytest.raises(WriteError, match=r"^cannot write .*step_00000002: the disk is full; "):
        save(tmp_path, 2, {"value": torch.ones(2)}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
    assert torch.equal(load(tmp_path / "step_00000001")["value"], torch.zeros(2))


def test_damaged_checkpoints_are_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load(tmp_path)

    def written(name: str) -> Path:
        return save(tmp_path / name, 1, {"a": torch.zeros(200), "b": 1})

    path = written("truncated") / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load(path.parent)

    path = written("format") / "values.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(CheckpointError, match="format 99, this version reads 1"):
        load(path.parent)

    path = written("missing") / "values.json"
    path.write_text(path.read_text().replace("/a", "/other"))
    with pytest.raises(CheckpointError, match="'/other' is missing"):
        load(path.parent)

    path = written("unused") / "values.json"
    document = json.loads(path.read_text())
    document["state"]["dict"].pop(0)
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"unexpected tensors /a$"):
        load(path.parent)


def test_other_objects_are_refused_by_name(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"cannot store /task/0: \w+ is neither"):
        save(tmp_path, 1, {"task": [tmp_path]})
    assert latest(tmp_path) is None
