"""Data sets to token files: every id is the tokenizer's own, whoever makes it, however often it is interrupted."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.records_on_disk import png, scene, write_tar
from tests.tiny import processes, tiny_images, tiny_model
from tests.tiny_unitok import tiny_unitok

from semhitok.data.images import load_image
from semhitok.data.shards import Shard, find_shards
from semhitok.data.token_files import read_format
from semhitok.inference.reconstruction import encode_images
from semhitok.runs.pretokenize import Reading, ShardResult, shards_of, tokenize_shards

pq = pytest.importorskip("pyarrow.parquet")
READING = Reading(batch_size=4, readers=2)
IMAGES = 7  # of a shard: the last batch is not full


def jpeg(index: int) -> bytes:
    buffer = io.BytesIO()
    pixels = tiny_images(1, seed=index, size=40)[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels[:, : 30 + index % 5]).save(buffer, "JPEG")
    return buffer.getvalue()


def write_shards(folder: Path, shards: int = 3, broken: tuple[tuple[int, int], ...] = ()) -> Path:
    for shard in range(shards):
        samples = [
            {
                ".jpg": b"no image" if (shard, index) in broken else jpeg(10 * shard + index),
                ".json": json.dumps(scene(index) | {"image": "x.jpg"}).encode(),
            }
            for index in range(IMAGES)
        ]
        write_tar(folder / f"train-{shard:04d}.tar", samples)
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def tokens(data: Path, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All shards tokenized without interruption. Not to be written to."""
    out = tmp_path_factory.mktemp("tokens")
    results = list(tokenize_shards(find_shards(data), out, tokenizer, READING))
    assert results == [ShardResult(f"train-{shard:04d}", IMAGES) for shard in range(3)]
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def joint_ids(path: Path) -> np.ndarray:
    form, _, _ = read_format(path)
    columns = {name: np.array(pq.read_table(path)[name].to_pylist()) for name in form.id_columns}
    return form.join(columns)


def test_ids_are_those_of_each_image_alone_beside_what_describes_it(data: Path, tokens: Path, tokenizer: Any):
    for shard in range(3):
        path = tokens / f"train-{shard:04d}.parquet"
        images = [jpeg(10 * shard + index) for index in range(IMAGES)]
        alone = torch.cat([each.ids for each in encode_images(tokenizer, images, batch_size=1)])
        assert np.array_equal(joint_ids(path), alone.numpy())
        table = pq.read_table(path)
        assert {name: str(table.schema.field(name).type.value_type) for name in ("semantic_ids", "pixel_ids")} == {
            "semantic_ids": "uint8",
            "pixel_ids": "uint8",
        }
        sizes = [load_image(image).size for image in images]
        assert list(zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True)) == sizes
        assert table["key"].to_pylist() == [f"{index:04d}" for index in range(IMAGES)]
        assert table["captions"].to_pylist() == [scene(index)["captions"] for index in range(IMAGES)]
        kept = [json.loads(text) for text in table["metadata"].to_pylist()]
        assert kept == [{k: v for k, v in scene(i).items() if k != "captions"} for i in range(IMAGES)]
        assert table["chat"].to_pylist() == [bool(scene(index)["qa"]) for index in range(IMAGES)]


def test_bad_images_change_nothing_but_the_rejects(data: Path, tokens: Path, tokenizer: Any, tmp_path: Path):
    broken = write_shards(tmp_path / "broken", 1, broken=((0, 1), (0, 6)))
    (result,) = tokenize_shards(find_shards(broken), tmp_path / "out", tokenizer, READING)
    assert result == ShardResult("train-0000", IMAGES - 2, 2)
    kept = [0, 2, 3, 4, 5]
    whole = tokens / "train-0000.parquet"
    assert pq.read_table(tmp_path / "out" / "train-0000.parquet").equals(pq.read_table(whole).take(kept))
    lines = (tmp_path / "out" / "rejects" / "train-0000.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["key"] for each in found] == ["0001", "0006"]
    assert all("not an image" in each["reason"] for each in found)
    (result,) = tokenize_shards(find_shards(broken), tmp_path / "out", tokenizer, READING)
    assert result == ShardResult("train-0000", IMAGES - 2, 2, done_before=True)


def test_the_batch_size_does_not_decide_ids(data: Path, tokens: Path, tokenizer: Any, tmp_path: Path):
    list(tokenize_shards(find_shards(data)[:1], tmp_path, tokenizer, Reading(batch_size=16)))
    assert np.array_equal(joint_ids(tmp_path / "train-0000.parquet"), joint_ids(tokens / "train-0000.parquet"))


def test_several_workers_write_what_one_writes(data: Path, tokens: Path, tokenizer: Any, tmp_path: Path):
    for worker in (1, 0):
        list(tokenize_shards(shards_of(find_shards(data), worker, 2), tmp_path, tokenizer, READING))
    assert contents(tmp_path) == contents(tokens)
    with pytest.raises(ValueError, match="worker 2 of 2 does not exist"):
        shards_of(find_shards(data), 2, 2)


def killed_at(data: Path, out: Path, calls: int) -> None:
    """For a process of its own: die at the n-th batch."""
    torch.set_num_threads(1)
    model = tiny_model()
    encode, left = model.encode, iter(range(calls))

    def dying(pixel_values: torch.Tensor) -> Any:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(pixel_values)

    model.encode = dying
    list(tokenize_shards(find_shards(data), out, model, READING))


def test_killed_and_started_again_the_files_are_the_same(data: Path, tokens: Path, tmp_path: Path):
    for calls in (1, 3, 0, 99):  # in the midst of the first shard, of the second, at once; then to the end
        process = processes.Process(target=killed_at, args=(data, tmp_path, calls))
        process.start()
        process.join()
        assert process.exitcode == (0 if calls == 99 else -signal.SIGKILL)
    for path in tmp_path.glob(".unfinished-*"):  # removed by a later start, after a day
        path.unlink()
    assert contents(tmp_path) == contents(tokens)


def test_ray_writes_the_same_files(data: Path, tokens: Path, tokenizer: Any, tmp_path: Path):
    ray = pytest.importorskip("ray")
    from semhitok.runs.pretokenize_ray import tokenize_with_ray

    tokenizer.save_pretrained(tmp_path / "model")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    try:
        arguments = (find_shards(data), tmp_path / "out", str(tmp_path / "model"))
        results = list(tokenize_with_ray(*arguments, READING, workers=2))
        with pytest.raises(ValueError, match=r"^\S*train-\d+\.parquet: was written with another fit"):
            list(tokenize_with_ray(*arguments, Reading(fit="resize", batch_size=4), workers=1))
    finally:
        ray.shutdown()
    assert sorted(result.name for result in results) == [f"train-{shard:04d}" for shard in range(3)]
    assert contents(tmp_path / "out") == contents(tokens)


def test_a_folder_and_parquet_give_the_same_ids_as_tars(data: Path, tokens: Path, tokenizer: Any, tmp_path: Path):
    import pyarrow as pa

    (tmp_path / "folder").mkdir()
    for index in range(IMAGES):
        (tmp_path / "folder" / f"{index:04d}.jpg").write_bytes(jpeg(index))
        (tmp_path / "folder" / f"{index:04d}.txt").write_text(f"caption {index}")
    stored = [{"bytes": jpeg(index), "path": None} for index in range(IMAGES - 1)]
    stored.append({"bytes": None, "path": "../folder/0006.jpg"})  # outside
    table = pa.table({"image": stored, "text": [f"caption {index}" for index in range(IMAGES)]})
    (tmp_path / "parquet").mkdir()
    pq.write_table(table, tmp_path / "parquet" / "part.parquet", row_group_size=2)
    wanted = joint_ids(tokens / "train-0000.parquet")

    shards = find_shards(tmp_path / "folder", images_per_shard=4)
    results = list(tokenize_shards(shards, tmp_path / "from_folder", tokenizer, READING))
    assert results == [ShardResult("000000", 4), ShardResult("000001", 3)]
    paths = sorted((tmp_path / "from_folder").glob("*.parquet"))
    assert np.array_equal(np.concatenate([joint_ids(path) for path in paths]), wanted)
    assert pq.read_table(paths[1])["captions"].to_pylist() == [[f"caption {index}"] for index in (4, 5, 6)]

    (result,) = tokenize_shards(find_shards(tmp_path / "parquet"), tmp_path / "from_parquet", tokenizer, READING)
    assert (result.images, result.rejected) == (6, 1)
    assert np.array_equal(joint_ids(tmp_path / "from_parquet" / "part.parquet"), wanted[:6])
    assert "lies outside" in (tmp_path / "from_parquet" / "rejects" / "part.jsonl").read_text()


def test_a_parquet_file_is_read_in_any_order_without_holding_it(tmp_path: Path):
    import pyarrow as pa

    from semhitok.data.parquet_images import KEPT, ROWS, ParquetImages

    count = ROWS * (KEPT + 3)
    table = pa.table({"picture": [png(index % 5) for index in range(count)], "key": [f"k{i}" for i in range(count)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    images = ParquetImages(tmp_path / "a.parquet")
    for index in (*range(0, count, 37), 3, count - 1, 0, 150):
        sample = images.load(index)
        assert sample.key == images.key(index) == f"k{index}"
        assert sample.image.tobytes() == load_image(png(index % 5)).tobytes()
        assert len(images._parts) <= KEPT


def test_drafts_are_told_apart_and_keep_the_stored_size(tokenizer: Any, tmp_path: Path):
    large = Image.fromarray(
        np.kron(tiny_images(1, seed=1, size=16)[0].permute(1, 2, 0).numpy(), np.ones((16, 16, 1), np.uint8))
    )
    buffer = io.BytesIO()
    large.resize((320, 240)).save(buffer, "JPEG")
    (tmp_path / "folder").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "folder" / name).write_bytes(buffer.getvalue())
    drafts = Reading(batch_size=4, draft=True)
    for part in (1, 2):  # of the folder in one or two shards
        shards = find_shards(tmp_path / "folder", images_per_shard=part)
        list(tokenize_shards(shards, tmp_path / f"out-{part}", tokenizer, drafts))
    table, form = (
        pq.read_table(tmp_path / "out-2" / "000000.parquet"),
        read_format(tmp_path / "out-2" / "000000.parquet")[0],
    )
    assert (table["width"].to_pylist(), table["height"].to_pylist(), form.jpeg) == ([320, 320], [240, 240], "draft")
    draft = load_image(buffer.getvalue(), draft_side=tokenizer.config.image_size)
    assert draft.width < 320
    (wanted,) = encode_images(tokenizer, [draft])
    assert np.array_equal(joint_ids(tmp_path / "out-1" / "000001.parquet"), wanted.ids.numpy())
    with pytest.raises(ValueError, match=r"was written with another jpeg \(draft, now full\)"):
        list(tokenize_shards(shards, tmp_path / "out-2", tokenizer, READING))


def test_files_from_before_there_were_drafts_are_read(tokens: Path, tmp_path: Path):
    table = pq.read_table(tokens / "train-0000.parquet")
    content = json.loads(table.schema.metadata[b"semhitok"])
    del content["jpeg"]
    pq.write_table(table.replace_schema_metadata({b"semhitok": json.dumps(content).encode()}), tmp_path / "old.parquet")
    assert read_format(tmp_path / "old.parquet")[0] == read_format(tokens / "train-0000.parquet")[0]


def test_several_codes_per_token_come_back(data: Path, tmp_path: Path):
    model = tiny_unitok(text=False).eval()
    list(tokenize_shards(find_shards(data)[:1], tmp_path, model, READING))
    images = [jpeg(index) for index in range(IMAGES)]
    ids = torch.cat([each.ids for each in encode_images(model, images)])
    assert ids.ndim == 3
    assert np.array_equal(joint_ids(tmp_path / "train-0000.parquet"), ids.numpy())


def test_datasets_reads_the_files(tokens: Path, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    files = [str(path) for path in sorted(tokens.glob("*.parquet"))]
    found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert len(found) == 3 * IMAGES
    assert found[8]["key"] == "0001"
    assert len(found[8]["semantic_ids"]) == 16


def test_what_was_made_otherwise_is_refused(data: Path, tokens: Path, tokenizer: Any, tmp_path: Path):
    shards = find_shards(data)[:1]

    def run(model: Any, reading: Reading = READING, pieces: list[Shard] = shards) -> Iterator[ShardResult]:
        return tokenize_shards(pieces, tokens, model, reading)

    with pytest.raises(ValueError, match=r"train-0000\.parquet: was written with another tokenizer"):
        next(run(tiny_model(seed=1)))
    with pytest.raises(ValueError, match="was written with another fit"):
        next(run(tokenizer, Reading(fit="resize", batch_size=4)))
    other = write_shards(tmp_path / "other", 1)
    with (other / "train-0000.tar").open("ab") as file:
        file.write(bytes(10240))
    with pytest.raises(ValueError, match="was made from other data called train-0000"):
        next(run(tokenizer, pieces=find_shards(other)))


def test_parquet_without_images_is_told(tokenizer: Any, tmp_path: Path):
    import pyarrow as pa

    pq.write_table(pa.table({"url": ["a"], "text": ["b"]}), tmp_path / "links.parquet")
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "links.parquet").read_bytes()[:-9])
    links, torn = tokenize_shards(find_shards(tmp_path), tmp_path / "out", tokenizer, READING)
    assert "has no column `image` with images, only url, text" in (links.error or "")
    assert "is not a parquet file, or is damaged" in (torn.error or "")
    assert not list(tmp_path.glob("out/*"))


def test_a_damaged_shard_does_not_stop_the_others(data: Path, tokenizer: Any, tmp_path: Path):
    folder = write_shards(tmp_path / "data", 2)
    whole = (folder / "train-0000.tar").read_bytes()
    (folder / "train-0000.tar").write_bytes(whole[: len(whole) // 2])
    first, second = tokenize_shards(find_shards(folder), tmp_path / "out", tokenizer, READING)
    assert "train-0000.tar" in (first.error or "")
    assert second.images == IMAGES
    assert [path.name for path in (tmp_path / "out").glob("*")] == ["train-0001.parquet"]
