"""The array cache: what is written is what is read, and nothing else is ever read."""

import errno
import os

import numpy as np
import pytest
import torch

from semhitok.storage.array_cache import (
    HEADER_BYTES,
    ArrayCache,
    ArrayCacheWriter,
    CacheKey,
    digest_of_module,
    digest_of_text,
)
from semhitok.storage.atomic import unfinished_path
from semhitok.teachers import Teacher, TeacherConfig

KEY = CacheKey(teacher="a" * 64, transform="b" * 64, data="c" * 64)


def filled(path, key=KEY):
    with ArrayCache.create(path, key, (4, 2), np.int32) as writer:
        writer.write(0, np.arange(8).reshape(4, 2))
        return writer.finish()


def interrupted(path, key):
    with ArrayCache.create(path, key, (4, 2), np.int32) as writer:
        writer.write(0, np.zeros((4, 2)))
        raise KeyboardInterrupt


@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_rows_come_back_whatever_the_order_of_writing(dtype, tmp_path):
    path = tmp_path / "folder" / "features.cache"
    rows = np.arange(7 * 2 * 3).reshape(7, 2, 3)
    with ArrayCache.create(path, KEY, rows.shape, dtype) as writer:
        writer.write(5, rows[5:])
        writer.write(0, rows[:5])
        finished = writer.finish()
    for cache in (finished, ArrayCache.open(path, KEY)):
        assert cache.array.dtype == dtype
        np.testing.assert_array_equal(cache.array, rows)
        with pytest.raises(ValueError, match="read-only"):
            cache.array[0] = 0
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("field", ["teacher", "transform", "data"])
def test_refuses_a_foreign_cache_naming_what_differs(field, tmp_path):
    filled(tmp_path / "ids.cache")
    other = CacheKey(**{**vars(KEY), field: "d" * 64})
    with pytest.raises(ValueError, match=f"a different {field};"):
        ArrayCache.open(tmp_path / "ids.cache", other)


def test_refuses_truncated_foreign_and_absent_files(tmp_path):
    path = tmp_path / "ids.cache"
    filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(
        ValueError,
        match=f"has {HEADER_BYTES + 31} bytes where its header says {HEADER_BYTES + 32}",
    ):
        ArrayCache.open(path, KEY)
    for content in (
        b"",
        b"not a cache",
        b"{}",
        whole[:100],
        b"\xff" * HEADER_BYTES,
        whole.replace(b"cache-1", b"cache-0"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a cache of this version"):
            ArrayCache.open(path, KEY)
    with pytest.raises(ValueError, match="no finished cache"):
        ArrayCache.open(tmp_path / "absent", KEY)


def test_an_unfinished_cache_is_never_readable_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "ids.cache"
    filled(path)
    new = CacheKey(teacher="e" * 64, transform=KEY.transform, data=KEY.data)
    with ArrayCache.create(path, new, (4, 2), np.int32) as writer:
        writer.write(1, np.zeros((1, 2)))
        with pytest.raises(ValueError, match="lacks 3 of 4 rows"):
            writer.finish()
    with pytest.raises(KeyboardInterrupt):
        interrupted(path, new)
    assert list(tmp_path.iterdir()) == [path]
    assert ArrayCache.open(path, KEY).array[3, 1] == 7


def test_what_killed_processes_left_goes_after_a_day(tmp_path):
    old, young = (unfinished_path(tmp_path / "ids.cache") for _ in range(2))
    other = unfinished_path(tmp_path / "features.cache")
    for path in (old, young, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (0, 0))
    filled(tmp_path / "ids.cache")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "ids.cache", young, other])


def test_refuses_rows_that_do_not_fit(tmp_path):
    with ArrayCache.create(tmp_path / "f", KEY, (2, 3), np.float16) as writer:
        for start, rows in (
            (1, np.zeros((2, 3))),
            (-1, np.zeros((1, 3))),
            (0, np.zeros((1, 4))),
        ):
            with pytest.raises(ValueError, match="do not fit"):
                writer.write(start, rows)
        for bad in (1e6, np.nan):  # float16 ends at 65504
            with pytest.raises(ValueError, match="cannot store as float16"):
                writer.write(0, np.full((1, 3), bad))
    with (
        ArrayCache.create(tmp_path / "i", KEY, (2, 3), np.int32) as writer,
        pytest.raises(ValueError, match="int32"),
    ):
        writer.write(0, np.full((1, 3), 2**31))


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = ArrayCache.create(tmp_path / "f", KEY, (1, 3), np.float16)
    monkeypatch.setattr(
        writer,
        "_file",
        type("Full", (), {"seek": lambda *_: 0, "write": full, "close": lambda _: None})(),
    )
    with pytest.raises(ValueError, match="cannot be written: No space left"), writer:
        writer.write(0, np.zeros((1, 3)))
    assert isinstance(writer, ArrayCacheWriter)
    assert not list(tmp_path.iterdir())


def test_digests_tell_modules_apart():
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    same = torch.nn.Linear(3, 2)
    same.load_state_dict(module.state_dict())
    digest = digest_of_module(module)
    assert len(digest) == 64
    assert digest_of_module(same) == digest
    with torch.no_grad():
        same.bias[0] = torch.nextafter(same.bias[0], torch.tensor(9.0))
    assert digest_of_module(same) != digest
    assert digest_of_module(module.to(torch.bfloat16)) != digest
    assert (
        digest_of_text("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )  # SHA-256 of nothing


def test_the_digest_of_a_teacher_covers_its_configuration():
    first = Teacher(TeacherConfig())
    second = Teacher(TeacherConfig(normalize_features=False), first.backbone)
    assert digest_of_module(first) != digest_of_module(second)
    assert digest_of_module(first) == digest_of_module(Teacher(TeacherConfig(_name_or_path="x"), first.backbone))
