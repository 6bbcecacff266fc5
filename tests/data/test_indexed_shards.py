"""Indexed tars, on disk and in a store: the same samples as without an index, in an order that nothing but the seed decides."""

from __future__ import annotations

import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from tests.data.pictures_on_disk import picture, png, sample_files, write_tar
from tests.storage.flaky_store import FlakyStore

from semhitok.data.block_order import BlockOrder
from semhitok.data.decoding import FittedImages
from semhitok.data.feed import StreamFeed
from semhitok.data.images import ImageError
from semhitok.data.indexed_records import IndexedRecords
from semhitok.data.indexed_shards import BLOCK, IndexedImages, block_sizes
from semhitok.data.record_sources import open_records
from semhitok.data.shard_index import SAMPLE, SUFFIX, TABLE, index_shards, read_index
from semhitok.data.sources import TarShards, open_source
from semhitok.storage.patience import ReadSettings
from semhitok.storage.piece_cache import PieceCache

SHARDS, IMAGES = 3, 6


@pytest.fixture
def settings(tmp_path: Path) -> ReadSettings:
    return ReadSettings(timeout=1, patience=0.3, cache=tmp_path / "cache", cache_limit=10**7)


def write(folder: Path) -> Path:
    """Three tars: images with descriptions, a long name, a sample without image, and one without description."""
    for shard in range(SHARDS):
        files: dict[str, bytes] = {}
        for index in range(IMAGES):
            files |= sample_files(IMAGES * shard + index)
        files["words.txt"] = b"no image"
        files[f"{'long/' * 60}name.png"] = png(100 + shard)
        write_tar(folder / f"train-{shard:04d}.tar", files)
    return folder


@pytest.fixture
def local(tmp_path: Path, settings: ReadSettings) -> Path:
    folder = write(tmp_path / "train")
    index_shards(str(folder), settings)
    return folder


@pytest.fixture
def remote(local: Path) -> str:
    """The same, in a store."""
    FlakyStore.empty()
    store = fsspec.filesystem("flaky")
    for path in local.iterdir():
        store.pipe_file(f"/bucket/train/{path.name}", path.read_bytes())
    return "flaky://bucket/train"


def test_samples_are_those_of_the_tars(local: Path, remote: str, settings: ReadSettings):
    plain = TarShards(local)
    for source in (IndexedImages(local, settings), IndexedImages(remote, settings), open_source(local)):
        assert len(source) == len(plain) == SHARDS * (IMAGES + 1)
        for index in (0, 5, 6, 7, 20):
            ours, theirs = source.load(index), plain.load(index)
            assert (ours.key, ours.metadata) == (theirs.key, theirs.metadata)
            assert ours.image.tobytes() == theirs.image.tobytes()
    assert isinstance(open_source(Path(remote)), IndexedImages)
    copy = pickle.loads(pickle.dumps(IndexedImages(remote, settings)))
    assert copy.load(3).key == plain.load(3).key
    assert copy.fingerprint == IndexedImages(local, settings).fingerprint


def test_records_are_those_of_the_tars(local: Path, remote: str, settings: ReadSettings):
    index = local / TABLE
    kept = index.read_bytes()
    index.unlink()
    plain = open_records(local, "caption")
    index.write_bytes(kept)
    for source in (open_records(local, "caption"), IndexedRecords(remote, "caption", settings)):
        assert isinstance(source, IndexedRecords)
        assert len(source) == len(plain) == SHARDS * (IMAGES + 1)
        for number in (0, 4, 8):
            ours, theirs = source.read(number, 1), plain.read(number, 1)
            assert (ours.text, ours.kind) == (theirs.text, theirs.kind)
            assert ours.pictures[0].load().tobytes() == theirs.pictures[0].load().tobytes()
        with pytest.raises(ValueError, match="needs one image, it has 0"):
            source.read(IMAGES, 0)


def test_indexing_again_keeps_what_fits_and_adds_the_rest(local: Path, settings: ReadSettings):
    place = local / f"train-0000.tar{SUFFIX}"
    before = place.stat().st_mtime_ns
    write_tar(local / "train-0003.tar", sample_files(50))
    write_tar(local / "train-0001.tar", sample_files(51) | {"pad.bin": bytes(50_000)})
    entries = index_shards(str(local), settings)
    assert [entry.samples for entry in entries] == [8, 1, 8, 1]
    assert place.stat().st_mtime_ns == before
    assert (SAMPLE.itemsize, len(IndexedImages(local, settings))) == (16, 7 + 1 + 7 + 1)
    assert isinstance(read_index(str(local), entries[0], PieceCache(settings)), np.memmap)


def test_the_order_is_one_whatever_the_number_of_processes(local: Path, settings: ReadSettings):
    source = IndexedImages(local, settings)
    length = len(source)
    whole = source.order(3).indices(0, 4 * length).tolist()
    batch, done = 8, 5  # steps before the world changes

    def read(start: int, steps: int, world: int, workers: int) -> list[list[int]]:
        feeds = [
            StreamFeed(source, 8, 8, seed=3, workers=workers).batches(start, batch, rank, world)
            for rank in range(world)
        ]
        return [[index for feed in feeds for index in next(feed).indices_B.tolist()] for _ in range(steps)]

    first = read(0, done, world=4, workers=0)
    assert first == [whole[batch * step :][:batch] for step in range(done)]
    for world, workers in ((1, 0), (2, 2)):
        rest = read(done * batch, 3, world, workers)
        assert rest == [whole[batch * (done + step) :][:batch] for step in range(3)]
    assert sorted(whole[:length]) == list(range(length))


def test_an_index_is_fetched_once(remote: str, settings: ReadSettings):
    source = IndexedImages(remote, settings)
    FlakyStore.reads.clear()
    images = FittedImages(source, 8, 8, "crop").read_many(range(len(source)))
    assert not [image for image in images if isinstance(image, ImageError)]
    assert len([path for path, *_ in FlakyStore.reads if path.endswith(SUFFIX)]) == SHARDS
    assert len(FlakyStore.reads) == 2 * SHARDS  # and each tar, which is one piece


def test_a_truncated_object_is_fetched_once(remote: str, settings: ReadSettings):
    store = fsspec.filesystem("flaky")
    whole = store.cat_file("/bucket/train/train-0001.tar")
    store.pipe_file("/bucket/train/train-0001.tar", whole[:3000])
    with pytest.warns(UserWarning, match="1 of 3 tars are truncated"):
        source = IndexedImages(remote, settings)
    FlakyStore.reads.clear()
    images = FittedImages(source, 8, 8, "crop").read_many(range(7, 14))
    assert all(isinstance(image, ImageError) for image in list(images)[2:])
    assert len([path for path, *_ in FlakyStore.reads if path.endswith("0001.tar")]) == 1


def test_blocks_are_runs_within_shards():
    counts = np.array([0, BLOCK, 1, 2 * BLOCK + 5, 0])
    assert block_sizes(counts).tolist() == [BLOCK, 1, BLOCK, BLOCK, 5]
    assert isinstance(BlockOrder(block_sizes(counts), 0), BlockOrder)


def test_a_read_that_fails_for_a_while_loses_nothing(
    remote: str, settings: ReadSettings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("semhitok.storage.patience.FIRST_DELAY", 0.001)
    source = IndexedImages(remote, settings)
    FlakyStore.fault = staticmethod(lambda number: ConnectionError("reset") if number % 3 else None)
    feed = StreamFeed(source, 8, 8, seed=0, workers=0)
    batches = feed.batches(0, 7)
    seen = [index for _ in range(3) for index in next(batches).indices_B.tolist()]
    assert sorted(seen) == list(range(21))
    assert not feed.bad


def test_a_truncated_tar_costs_its_lost_samples_only(local: Path, settings: ReadSettings):
    path = local / "train-0001.tar"
    index = read_index(str(local), IndexedImages(local, settings).shards.entries[1], PieceCache(settings))
    path.write_bytes(path.read_bytes()[: int(index[3]["offset"]) + 700])
    with pytest.warns(UserWarning, match=r"1 of 3 tars are truncated \(train-0001\.tar\)"):
        source = IndexedImages(local, settings)
    wrong = {}
    for number in range(len(source)):
        try:
            source.load(number)
        except ImageError as error:
            wrong[number] = str(error)
    assert list(wrong) == [10, 11, 12, 13]
    assert all("train-0001.tar sample" in reason and "cut off" in reason for reason in wrong.values())


def refused(folder: Any, settings: ReadSettings) -> str:
    with pytest.raises((ValueError, OSError)) as error:
        IndexedImages(folder, settings).load(0)
    assert str(error.value).count("\n") == 0
    return str(error.value)


def test_what_does_not_fit_is_told_before_the_first_sample(
    local: Path, remote: str, settings: ReadSettings, tmp_path: Path
):
    store = fsspec.filesystem("flaky")
    assert "there is no such bucket, folder or object" in refused("flaky://none/x", settings)
    store.rm("/bucket/train/train-0002.tar")
    assert "1 of 3 tars are missing: train-0002.tar" in refused(remote, settings)
    store.rm(f"/bucket/train/{TABLE}")
    assert "run `semhitok data index flaky://bucket/train`" in refused(remote, settings)
    assert "there are no tar files" in refused_index(tmp_path, settings)

    with (local / "train-0000.tar").open("ab") as file:
        file.write(bytes(10240))
    assert "the index does not fit train-0000.tar" in refused(local, settings)
    write(local)
    table = json.loads((local / TABLE).read_text())
    (local / f"train-0000.tar{SUFFIX}").write_bytes(b"SHARDIX1")
    assert "is missing, damaged, or does not fit its tar" in refused(local, settings)
    table["shards"][0]["name"] = "../train/train-0000.tar"
    (local / TABLE).write_text(json.dumps(table))
    assert "tars are missing" in refused(local, settings)
    (local / TABLE).write_text("{")
    assert "is damaged or of another version" in refused(local, settings)


def refused_index(folder: Path, settings: ReadSettings) -> str:
    (folder / "empty").mkdir()
    with pytest.raises(ValueError) as error:  # noqa: PT011
        index_shards(str(folder / "empty"), settings)
    return str(error.value)


def test_a_tar_that_cannot_be_indexed_does_not_stop_the_others(local: Path, settings: ReadSettings):
    for path in local.glob(f"*{SUFFIX}"):
        path.unlink()
    (local / "train-0001.tar").write_bytes(b"\x1f\x8b compressed")
    with pytest.raises(ValueError, match=r"1 of 3 tars cannot be indexed, the first: .*train-0001\.tar"):
        index_shards(str(local), settings)
    assert (local / f"train-0002.tar{SUFFIX}").is_file()


def test_names_in_a_tar_lead_nowhere(tmp_path: Path, settings: ReadSettings):
    (tmp_path / "secret.png").write_bytes(png(99))
    names = ["../secret.png", str(tmp_path / "secret.png"), "x/../../secret.png"]
    path = write_tar(tmp_path / "train" / "a.tar", {name: png(number) for number, name in enumerate(names)})
    with tarfile.open(path, "a") as tar:
        for name, kind in (("link.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(tmp_path / "secret.png")
            tar.addfile(member)
    before = sorted(tmp_path.rglob("*"))
    plain = TarShards(path)
    index_shards(str(tmp_path / "train"), settings)
    for source in (plain, IndexedImages(tmp_path / "train", settings)):
        assert len(source) == 3  # links are no images
        for number in range(3):
            assert source.load(number).image.tobytes() == picture(number).tobytes()
    written = set(tmp_path.rglob("*")) - set(before)
    assert written == {tmp_path / "train" / TABLE, tmp_path / "train" / f"a.tar{SUFFIX}"}
    assert (tmp_path / "secret.png").read_bytes() == png(99)
