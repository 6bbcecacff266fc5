"""Objects in a store: ranges, attempts, errors of one sentence, and pieces of them on local disk."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from tests.storage.flaky_store import FlakyStore

from semhitok.storage import patience, piece_cache
from semhitok.storage.byte_ranges import ByteRange
from semhitok.storage.objects import address, at_once, is_remote, object_sizes, read_object, write_object
from semhitok.storage.patience import ReadSettings
from semhitok.storage.piece_cache import PieceCache

DATA = bytes(range(256)) * 40


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReadSettings:
    monkeypatch.setattr(patience, "FIRST_DELAY", 0.001)
    FlakyStore.empty()
    fsspec.filesystem("flaky").pipe_file("/bucket/a.tar", DATA)
    return ReadSettings(timeout=1, patience=0.5, cache=tmp_path / "cache", cache_limit=10**6)


def test_what_is_an_address():
    for location in ("s3://b/k", "gs://b", "hf://datasets/a/b", "https://host/x", Path("s3://b/k")):
        assert is_remote(location)
        assert "://" in address(location)
    assert address(Path("s3://bucket/a//b")) == "s3://bucket/a/b"
    for location in ("a/b", "/a/b", Path("x.tar"), "C:/data", "train-{0..3}.tar", ""):
        assert not is_remote(location)


def test_ranges_sizes_and_writes(settings: ReadSettings):
    assert read_object("flaky://bucket/a.tar", None, settings) == DATA
    assert read_object("flaky://bucket/a.tar", ByteRange(10, 20), settings) == DATA[10:30]
    assert read_object("flaky://bucket/a.tar", ByteRange(len(DATA) - 2, 20), settings) == DATA[-2:]
    assert read_object("flaky://bucket/a.tar", ByteRange(5, 0), settings) == b""
    write_object("flaky://bucket/b.index", b"x", settings)
    assert object_sizes("flaky://bucket", settings) == {"a.tar": len(DATA), "b.index": 1}
    assert at_once([lambda number=number: number * 2 for number in range(50)]) == list(range(0, 100, 2))


def test_failing_reads_are_repeated_and_given_up_in_time(settings: ReadSettings):
    FlakyStore.fault = staticmethod(lambda number: ConnectionError("reset") if number < 4 else None)
    assert read_object("flaky://bucket/a.tar", None, settings) == DATA
    assert len(FlakyStore.reads) == 4
    FlakyStore.fault = staticmethod(lambda number: TimeoutError())
    with pytest.raises(OSError, match=r"^flaky://bucket/a\.tar: cannot be read for 0\.5 seconds: TimeoutError\.$"):
        read_object("flaky://bucket/a.tar", None, settings)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FileNotFoundError("x"), "there is no such bucket, folder or object"),
        (PermissionError("x"), "access is denied with the present credentials"),
        (type("NoCredentialsError", (Exception,), {})(), "no credentials were found"),
    ],
)
def test_errors_that_stay_are_told_at_once(settings: ReadSettings, error: Exception, sentence: str):
    FlakyStore.reads.clear()
    FlakyStore.fault = staticmethod(lambda number: error)
    with pytest.raises(OSError, match=sentence):
        read_object("flaky://bucket/a.tar", None, settings)
    assert len(FlakyStore.reads) == 1


def test_a_store_without_its_package_says_what_to_install(settings: ReadSettings):
    with pytest.raises(OSError, match=r"pip install semhitok\[storage\]|cannot be read"):
        read_object("abfs://container/a", None, settings)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SEMHITOK_STREAM_CACHE", str(tmp_path))
    monkeypatch.setenv("SEMHITOK_STREAM_CACHE_GB", "0.5")
    assert (ReadSettings().cache, ReadSettings().cache_limit) == (tmp_path, 5 * 10**8)
    monkeypatch.setenv("SEMHITOK_READ_TIMEOUT", "soon")
    with pytest.raises(ValueError, match="SEMHITOK_READ_TIMEOUT must be a number of at least 0, got 'soon'"):
        ReadSettings()


def test_pieces_are_fetched_once_and_give_the_same_bytes(settings: ReadSettings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(piece_cache, "PIECE", 1000)
    cache = PieceCache(settings)
    for place in (
        ByteRange(0, 10),
        ByteRange(990, 20),
        ByteRange(0, len(DATA)),
        ByteRange(10_200, 500),
        ByteRange(3, 0),
    ):
        wanted = DATA[place.offset : place.offset + place.size]
        assert cache.read("flaky://bucket/a.tar", len(DATA), place) == wanted
    assert len(FlakyStore.reads) == 11
    assert PieceCache(settings).read("flaky://bucket/a.tar", len(DATA), ByteRange(2000, 5)) == DATA[2000:2005]
    assert len(FlakyStore.reads) == 11
    assert not list(settings.cache.rglob("*.lock"))
    (damaged, *_) = (path for path in settings.cache.rglob("*") if path.is_file())
    damaged.write_bytes(b"x")
    assert cache.read("flaky://bucket/a.tar", len(DATA), ByteRange(0, len(DATA))) == DATA


def test_the_cache_keeps_its_limit_and_the_pieces_used_last(settings: ReadSettings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(piece_cache, "PIECE", 1000)
    small = ReadSettings(timeout=1, patience=0.5, cache=settings.cache, cache_limit=4000)
    cache = PieceCache(small)
    for number in range(10):
        cache.read("flaky://bucket/a.tar", len(DATA), ByteRange(1000 * number, 10))
        for path in settings.cache.rglob("*"):  # file systems tell times apart in steps
            if path.is_file() and path.stat().st_mtime > 1e9:
                os.utime(path, (number + 1, number + 1))
        assert sum(path.stat().st_size for path in settings.cache.rglob("*") if path.is_file()) <= 4000
    before = len(FlakyStore.reads)
    cache.read("flaky://bucket/a.tar", len(DATA), ByteRange(9000, 10))
    assert len(FlakyStore.reads) == before
    nothing = ReadSettings(timeout=1, patience=0.5, cache=settings.cache / "none", cache_limit=0)
    assert PieceCache(nothing).read("flaky://bucket/a.tar", len(DATA), ByteRange(5, 5)) == DATA[5:10]
    assert not (settings.cache / "none").exists()


def test_the_limit_holds_for_all_processes_together(settings: ReadSettings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(piece_cache, "PIECE", 1000)
    fsspec.filesystem("flaky").pipe_file("/bucket/large.tar", bytes(48_000))
    small = ReadSettings(timeout=1, patience=0.5, cache=settings.cache, cache_limit=32_000)
    caches = [PieceCache(small) for _ in range(24)]  # as each of so many workers has one
    for number in range(48):
        caches[number % 24].read("flaky://bucket/large.tar", 48_000, ByteRange(1000 * number, 10))
        stored = sum(path.stat().st_size for path in settings.cache.glob("??/*"))
        assert stored <= 32_000
    assert stored > 24_000


def test_a_folder_that_cannot_be_written_only_costs_time(settings: ReadSettings, tmp_path: Path):
    (tmp_path / "file").write_text("")
    blocked = ReadSettings(timeout=1, patience=0.5, cache=tmp_path / "file" / "cache", cache_limit=10**6)
    assert PieceCache(blocked).read("flaky://bucket/a.tar", len(DATA), ByteRange(5, 5)) == DATA[5:10]


def test_threads_fetch_a_piece_once(settings: ReadSettings):
    cache = PieceCache(settings)
    barrier = threading.Barrier(8)

    def read() -> bytes:
        barrier.wait()
        return cache.read("flaky://bucket/a.tar", len(DATA), ByteRange(100, 50))

    assert at_once([read] * 8) == [DATA[100:150]] * 8
    assert len(FlakyStore.reads) == 1


class Stalling(SimpleHTTPRequestHandler):
    """A plain web server, without ranges, that answers the first request for an object too late."""

    stalled: set[str] = set()

    def do_GET(self) -> None:
        if self.path.endswith(".tar") and self.path not in self.stalled:
            self.stalled.add(self.path)
            time.sleep(1.5)
        super().do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def web_server(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.tar").write_bytes(DATA)
    Stalling.stalled = set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Stalling, directory=str(tmp_path / "web")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_stalled_connection_is_given_up_and_tried_again(web_server: str, tmp_path: Path):
    quick = ReadSettings(timeout=0.5, patience=60, cache=tmp_path, cache_limit=0)
    assert read_object(f"{web_server}/a.tar", ByteRange(300, 20), quick) == DATA[300:320]
    assert Stalling.stalled == {"/a.tar"}
    assert object_sizes(f"{web_server}/", quick) == {"a.tar": len(DATA)}
    with pytest.raises(OSError, match="there is no such bucket, folder or object"):
        read_object(f"{web_server}/none.tar", None, quick)
