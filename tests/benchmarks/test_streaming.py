"""The short form of the campaign on a real S3 server; the long one is in docs/experiments.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.s3_server import s3_server
from benchmarks.streaming import BUCKET, STOPS, campaign, upload

from semhitok.cli import main
from semhitok.data.indexed_shards import IndexedImages
from semhitok.data.shards import find_shards
from semhitok.storage.patience import ReadSettings

pytest.importorskip("moto.server")
pytest.importorskip("s3fs")


def test_killed_and_resumed_on_other_worlds_every_sample_comes_once():
    found = campaign(960, 4, seed=0, faults=False, seconds=2.0, batch=16)
    assert found["kills"] <= STOPS
    assert (found["read"], found["different"], found["repeated"], found["bad"]) == (960, 960, 0, 0)
    assert found["as_planned"] == 960


def test_a_bucket_is_indexed_read_and_refused_in_a_sentence(tmp_path: Path, capsys, monkeypatch):
    with s3_server():
        settings = ReadSettings(timeout=20, patience=2, cache=tmp_path, cache_limit=10**8)
        upload(60, 3, settings)
        assert main(["data", "index", BUCKET]) == 0
        assert "indexed 3 tars in s3://bucket/train: 60 samples, 60 with an image" in capsys.readouterr().out
        source = IndexedImages(BUCKET, settings)
        assert [source.load(index).key for index in (0, 25, 59)] == ["0000-000000", "0001-000005", "0002-000019"]
        shard = find_shards(Path(BUCKET))[1]
        assert (shard.name, len(shard.open())) == ("train-0001", 20)
        for address, sentence in (
            ("s3://none/x", "there is no such bucket"),
            ("s3://bucket/empty", "no such|has no shards"),
        ):
            with pytest.raises((OSError, ValueError), match=sentence):
                IndexedImages(address, settings)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setattr("semhitok.storage.objects._filesystems", {})
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(OSError, match=r"^s3://bucket/train/shards\.json: no credentials were found"):
            IndexedImages(BUCKET, settings)
