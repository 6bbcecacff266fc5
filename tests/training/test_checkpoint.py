"""Checkpoints: what goes in comes out, and a folder with a checkpoint's name is whole."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from semhitok.storage.atomic import WriteError
from semhitok.training.checkpoint import CheckpointError, latest, load, newest_readable, save

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

    path = written("unused") / "values.json"
    document = json.loads(path.read_text())
    document["state"]["dict"].pop(0)
    del document["checksum"]
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"unexpected tensors /a$"):
        load(path.parent)


def rewrite(**tensors: torch.Tensor | None) -> Callable[[Path], None]:
    """Replace tensors in a file that stays well formed; None removes one."""

    def damage(path: Path) -> None:
        file = path / "tensors.safetensors"
        changed = load_file(file) | {f"/{name}": tensor for name, tensor in tensors.items()}
        save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, file)

    return damage


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        (path / name).write_bytes(change((path / name).read_bytes()))

    return damage


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def replaced_by_a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("")


def emptied(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


TENSORS, VALUES = "tensors.safetensors", "values.json"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a zeroed tensor": (rewrite(a=torch.zeros(200)), "1 tensors are not as they were written: /a;"),
    "all tensors zeroed": (
        rewrite(a=torch.zeros(200), b=torch.zeros(3, dtype=torch.int64)),
        "2 tensors are not as they were written: /a, /b;",
    ),
    "zeroed bytes": (edit(TENSORS, lambda content: content[:-600] + bytes(600)), "as they were written: /a"),
    "a flipped bit of a tensor": (
        edit(TENSORS, lambda content: flip(content, len(content) - 1)),
        "as they were written: /",
    ),
    "another type": (rewrite(a=torch.ones(200, dtype=torch.int32)), "as they were written: /a;"),
    "another shape": (rewrite(a=torch.ones(2, 100)), "as they were written: /a;"),
    "a missing tensor": (rewrite(a=None), "'/a' is missing"),
    "one tensor too many": (rewrite(c=torch.ones(1)), "unexpected tensors /c;"),
    "truncated tensors": (edit(TENSORS, lambda content: content[:-5]), "not a readable checkpoint"),
    "empty tensors": (edit(TENSORS, lambda content: b""), "not a readable checkpoint"),
    "no tensors": (lambda path: (path / TENSORS).unlink(), "not a readable checkpoint"),
    "a flipped bit of the header": (edit(TENSORS, lambda content: flip(content, 12)), "step_00000002"),
    "another number": (
        edit(VALUES, lambda text: text.replace(b"0.125", b"0.126")),
        "values.json is not as it was written",
    ),
    "another step": (
        edit(VALUES, lambda text: text.replace(b'"step": 2', b'"step": 3')),
        "values.json is not as it was",
    ),
    "truncated values": (edit(VALUES, lambda text: text[:-5]), "not a readable checkpoint"),
    "zeroed values": (edit(VALUES, lambda text: bytes(len(text))), "not a readable checkpoint"),
    "values that are no text": (edit(VALUES, lambda text: b"\xff" + text), "not a readable checkpoint"),
    "a list as values": (edit(VALUES, lambda text: b"[]"), "holds no checkpoint's values"),
    "deep values": (edit(VALUES, lambda text: b"[" * 100_000), "not a readable checkpoint"),
    "no values": (lambda path: (path / VALUES).unlink(), "not a readable checkpoint"),
    "an empty folder": (emptied, "not a readable checkpoint"),
    "a file": (replaced_by_a_file, "not a readable checkpoint"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_of_a_damaged_checkpoint_the_one_before_is_used_and_both_are_named(tmp_path: Path, kind: str):
    damage, reason = DAMAGES[kind]
    for step in (1, 2):
        state = {"a": torch.full((200,), float(step)), "b": torch.tensor([1, 2, step]), "rate": 0.125}
        path = save(tmp_path, step, state)
    damage(path)
    said: list[str] = []
    found = newest_readable(tmp_path, said.append)
    assert found is not None
    assert found[0] == 1
    assert torch.equal(found[1]["a"], torch.ones(200))
    (line,) = said
    assert "\n" not in line
    assert line.startswith(str(path))
    assert reason in line
    assert line.endswith("; the run goes on from step_00000001")


def test_without_an_earlier_checkpoint_a_damaged_one_is_an_error(tmp_path: Path):
    rewrite(a=torch.zeros(2))(save(tmp_path, 1, {"a": torch.ones(2)}))
    with pytest.raises(
        CheckpointError, match=r"step_00000001 is damaged: .* /a; no earlier checkpoint can be read: del"
    ):
        newest_readable(tmp_path, print)


def test_a_whole_checkpoint_of_another_format_is_not_passed_over(tmp_path: Path):
    save(tmp_path, 1, {"value": 1})
    edit(VALUES, lambda text: text.replace(b'"format": 1', b'"format": 99'))(save(tmp_path, 2, {"value": 2}))
    with pytest.raises(CheckpointError, match="format 99, this version reads 1"):
        newest_readable(tmp_path, print)


@pytest.mark.parametrize("kind", ["empty", "file", "foreign"])
def test_a_stray_name_neither_blocks_nor_counts_as_kept(tmp_path: Path, kind: str):
    stray = tmp_path / "step_99999999"
    if kind == "file":
        stray.write_text("")
    else:
        stray.mkdir()
    if kind == "foreign":
        (stray / "notes.txt").write_text("")
    said: list[str] = []
    assert newest_readable(tmp_path, said.append) is None
    assert said == [f"{stray} is passed over: it holds no checkpoint"]
    for step in (1, 2, 3):
        save(tmp_path, step, {"step": step}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000002", "step_00000003", "step_99999999"]
    assert latest(tmp_path) == tmp_path / "step_00000003"
    assert newest_readable(tmp_path, said.append) == (3, {"step": 3})


def test_a_copy_under_another_step_is_not_taken_for_it(tmp_path: Path):
    shutil.copytree(save(tmp_path, 1, {"step": 1}), tmp_path / "step_99999999")
    said: list[str] = []
    assert newest_readable(tmp_path, said.append) == (1, {"step": 1})
    assert "is not what its name says: it holds step 1;" in said[0]


def test_checkpoints_without_checksums_are_read(tmp_path: Path):
    """Those of earlier versions."""
    path = save(tmp_path, 1, {"a": torch.ones(2), "b": 1})
    document = json.loads((path / VALUES).read_text())
    del document["tensors"], document["checksum"]
    (path / VALUES).write_text(json.dumps(document))
    found = newest_readable(tmp_path, print)
    assert found is not None
    assert torch.equal(found[1]["a"], torch.ones(2))
    for state in ("{}", '{"dict": 3}', '{"dict": [1]}', '{"tensor": []}', '{"list": null}', '{"a": 1, "b": 2}'):
        (path / VALUES).write_text(json.dumps(document | {"state": json.loads(state)}))
        with pytest.raises(CheckpointError, match="step_00000001 is damaged: "):
            load(path)


def test_other_objects_are_refused_by_name(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"cannot store /task/0: \w+ is neither"):
        save(tmp_path, 1, {"task": [tmp_path]})
    assert latest(tmp_path) is None
