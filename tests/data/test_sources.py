from __future__ import annotations

import io
import json
import os
import pickle
import sys
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semhitok.data.images import ImageError
from semhitok.data.sources import HuggingFaceImages, ImageFolder, ImageSource, Subset, TarShards, open_source

COUNT = 12


def picture(number: int) -> Image.Image:
    """A random RGB picture of 20 x 24 pixels, the same for the same number."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8))


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def sample_files(number: int) -> dict[str, bytes]:
    return {
        f"{number:04d}.json": json.dumps({"number": number}).encode(),
        f"{number:04d}.png": png(number),
        f"{number:04d}.txt": f"picture {number}\n".encode(),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 pictures with descriptions, half of them in a subfolder."""
    root = tmp_path / "pictures"
    (root / "sub").mkdir(parents=True)
    for number in range(COUNT):
        for name, data in sample_files(number).items():
            (root / "sub" / name if number >= COUNT // 2 else root / name).write_bytes(data)
    return root


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """The same pictures in two tars."""
    for shard in range(2):
        numbers = range(shard * COUNT // 2, (shard + 1) * COUNT // 2)
        files = {name: data for number in numbers for name, data in sample_files(number).items()}
        write_tar(tmp_path / "tars" / f"train-{shard:02d}.tar", files)
    return tmp_path / "tars"


def assert_same_samples(source: ImageSource, numbers: list[int]) -> None:
    assert len(source) == len(numbers)
    for index, number in enumerate(numbers):
        sample = source.load(index)
        np.testing.assert_array_equal(np.asarray(sample.image), np.asarray(picture(number)))
        assert sample.metadata == {"number": number, "caption": f"picture {number}"}
        assert sample.key == source.key(index)


def test_folder_tars_and_pickled_copies_hold_the_same(folder: Path, shards: Path) -> None:
    numbers = list(range(COUNT))
    for source in (ImageFolder(folder), TarShards(shards), TarShards(str(shards / "*.tar"))):
        assert_same_samples(source, numbers)
        assert_same_samples(pickle.loads(pickle.dumps(source)), numbers)
    assert_same_samples(TarShards(sorted(shards.iterdir(), reverse=True)), [*range(6, 12), *range(6)])
    assert_same_samples(TarShards(shards / "train-01.tar"), list(range(6, 12)))
    assert ImageFolder(folder).key(COUNT - 1) == "sub/0011.png"


def test_folder_may_stay_at_the_top_and_skips_hidden_files(folder: Path) -> None:
    (folder / ".hidden.png").write_bytes(png(0))
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "a.png").write_bytes(png(0))
    assert len(ImageFolder(folder)) == COUNT
    assert_same_samples(ImageFolder(folder, recursive=False), list(range(COUNT // 2)))


def test_links_that_lead_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for name in "abcdefghij":
        (folder / name).mkdir(parents=True)
        (folder / name / "0.png").write_bytes(png(0))
        for other in "abcdefghij":
            (folder / name / f"to_{other}").symlink_to(folder / other)
    names = [ImageFolder(folder).key(index) for index in range(len(ImageFolder(folder)))]
    assert set("abcdefghij") <= {name.split("/")[0] for name in names}
    assert len(names) == len(set(names)) == 10 * 10, "a folder, and what its links to the nine others show"
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "0.png").write_bytes(png(0))
    for name in ("one", "other"):
        (tmp_path / "two" / name).symlink_to(".")
    assert len(ImageFolder(tmp_path / "two")) == 1


def test_a_pipe_is_neither_waited_for_nor_read(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert "pipe.png" not in {ImageFolder(folder).key(index) for index in range(len(ImageFolder(folder)))}
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(ValueError, match=r"pipe\.tar: there is no such file, or no regular one"):
        TarShards(tmp_path / "pipe.tar")


def test_webdataset_naming(tmp_path: Path) -> None:
    """Checked against the webdataset package's own grouping of the same tar."""
    webdataset = pytest.importorskip("webdataset")
    files = {
        "dataset.json": b"{}",
        "a/x.mask.png": png(1),
        "a/x.png": png(2),
        "a/x.cls": b"7",
        "b/x.JPG": png(3),
        "b/x.y.json": b"not json",
        "c.d/y.webp": png(4),
    }
    path = write_tar(tmp_path / "t.tar", files)
    source = TarShards(path)
    groups = list(webdataset.WebDataset(str(path), shardshuffle=False))
    with_images = [group["__key__"] for group in groups if group["__key__"] != "dataset"]
    assert [source.key(index) for index in range(len(source))] == with_images == ["a/x", "b/x", "c.d/y"]
    for index, number in enumerate((2, 3, 4)):
        np.testing.assert_array_equal(np.asarray(source.load(index).image), np.asarray(picture(number)))
    assert source.load(0).metadata == {"class": 7}


def test_bad_samples_name_file_and_shard(folder: Path, shards: Path) -> None:
    (folder / "0003.png").write_bytes(png(3)[:200])
    (folder / "0005.png").unlink()
    source = ImageFolder(folder)
    with pytest.raises(ImageError, match=r"pictures/0003\.png: truncated"):
        source.load(3)
    (folder / "0002.png").unlink()
    with pytest.raises(ImageError, match=r"pictures/0002\.png: cannot be read"):
        source.load(2)
    path = write_tar(shards / "bad-00.tar", {"k.jpg": png(0)[:100]})
    with pytest.raises(ImageError, match=r"bad-00\.tar: k\.jpg: "):
        TarShards(path).load(0)


def test_unreadable_tars_are_refused(shards: Path, tmp_path: Path) -> None:
    with tarfile.open(shards / "train-00.tar") as tar:
        last = tar.getmembers()[-1]
    whole = (shards / "train-00.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: last.offset_data + last.size // 2])
    (tmp_path / "text.tar").write_text("no tar at all " * 100)
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        tar.add(shards / "train-00.tar")
    for name in ("cut.tar", "text.tar", "packed.tar", "missing.tar"):
        with pytest.raises(ValueError, match=name):
            TarShards(tmp_path / name)
    with pytest.raises(ValueError, match=r"words\.tar: .*image"):
        TarShards(write_tar(tmp_path / "words.tar", {"a.txt": b"a"}))


def test_fingerprints_tell_data_apart(folder: Path, shards: Path) -> None:
    def fingerprints() -> list[str]:
        return [ImageFolder(folder).fingerprint, TarShards(shards).fingerprint]

    before = fingerprints()
    assert before == fingerprints()
    (folder / "0000.png").rename(folder / "0000b.png")
    write_tar(shards / "train-00.tar", sample_files(0))
    assert all(new != old for new, old in zip(fingerprints(), before, strict=True))
    source = ImageFolder(folder)
    parts = [Subset(source, indices).fingerprint for indices in ([0, 1], [1, 0], [0])]
    assert len({source.fingerprint, *parts}) == 4


def test_subset(folder: Path) -> None:
    assert_same_samples(Subset(Subset(ImageFolder(folder), range(4, 12)), [7, 0, 0]), [11, 4, 4])
    with pytest.raises(ValueError, match=r"\[0, 12\)"):
        Subset(ImageFolder(folder), [12])


def hugging_face_dataset() -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "number": datasets.Value("int64"), "caption": datasets.Value("string")}
    )
    rows = [{"image": picture(n), "number": n, "caption": f"picture {n}"} for n in range(COUNT)]
    return datasets.Dataset.from_list(rows, features=features)


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what ``load_dataset`` caches inside the test."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def test_hugging_face_from_memory_and_disk(tmp_path: Path) -> None:
    dataset = hugging_face_dataset()
    assert_same_samples(HuggingFaceImages(dataset), list(range(COUNT)))
    dataset.save_to_disk(str(tmp_path / "saved"))
    source = open_source(tmp_path / "saved")
    assert_same_samples(pickle.loads(pickle.dumps(source)), list(range(COUNT)))
    assert source.fingerprint == open_source(tmp_path / "saved").fingerprint
    assert HuggingFaceImages(dataset.select([0, 1])).fingerprint != HuggingFaceImages(dataset).fingerprint


@pytest.mark.usefixtures("datasets_cache")
def test_hugging_face_splits_and_parquet(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = hugging_face_dataset()
    splits = {"train": dataset.select(range(8)), "test": dataset.select(range(8, 12))}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "parquet").mkdir()
    for name, part in splits.items():
        part.to_parquet(str(tmp_path / "parquet" / f"{name}-00000-of-00001.parquet"))
    for root in (tmp_path / "saved", tmp_path / "parquet"):
        assert_same_samples(open_source(root, split="test"), [8, 9, 10, 11])
        assert open_source(root, split="test").fingerprint != open_source(root, split="train").fingerprint
        with pytest.raises(ValueError, match=r"has the splits .*; name one"):
            open_source(root)
        with pytest.raises(ValueError, match="no split 'val'"):
            open_source(root, split="val")
    assert_same_samples(open_source(tmp_path / "parquet" / "test-00000-of-00001.parquet"), [8, 9, 10, 11])


@pytest.mark.usefixtures("datasets_cache")
def test_hugging_face_imagefolder(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    lines = []
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
        lines.append(json.dumps({"file_name": f"{number}.png", "number": number, "caption": f"picture {number}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    source = open_source(tmp_path)
    assert isinstance(source, HuggingFaceImages)
    assert_same_samples(source, [0, 1, 2])


def test_hugging_face_bad_rows_and_columns() -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"picture": {"bytes": png(0)[:99], "path": "a.png"}}, {"picture": None}]
    dataset = datasets.Dataset.from_list(rows, features=datasets.Features({"picture": datasets.Image()}))
    source = HuggingFaceImages(dataset)  # its only column of images
    with pytest.raises(ImageError, match=r"row 0 \(a\.png\): "):
        source.load(0)
    with pytest.raises(ImageError, match="row 1: has no image"):
        source.load(1)
    with pytest.raises(ValueError, match="no column 'photo', only picture"):
        HuggingFaceImages(dataset, image_column="photo")
    several = dataset.add_column("other", [None, None]).cast_column("other", datasets.Image())
    with pytest.raises(ValueError, match="no column 'image', only picture, other"):
        HuggingFaceImages(several)


def test_paths_in_parquet_files_stay_in_their_folder(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(png(1))
    (folder / "a.png").write_bytes(png(0))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    inside, outside = [str(folder / "a.png")], [str(tmp_path / "secret.png"), str(folder / "link.png"), "../secret.png"]
    paths = inside + outside + ["a\0b"]
    features = datasets.Features({"image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}})
    rows = {"image": [{"bytes": None, "path": path} for path in paths]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "rows.parquet")
    source = HuggingFaceImages.open(folder / "rows.parquet")
    assert source.load(0).image.size == picture(0).size
    for index in range(1, 4):
        with pytest.raises(
            ImageError, match=r"row \d .*: lies outside .*set, which allow_outside would have to permit"
        ):
            source.load(index)
    with pytest.raises(ImageError, match="no file can have this name"):
        source.load(4)
    trusting = HuggingFaceImages.open(folder / "rows.parquet", allow_outside=True)
    assert trusting.load(1).image.tobytes() == picture(1).tobytes()


def test_hugging_face_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install semhitok\[data\]"):
        HuggingFaceImages(object())


def test_open_source_decides_by_what_is_on_disk(folder: Path, shards: Path, tmp_path: Path) -> None:
    assert_same_samples(open_source(folder), list(range(COUNT)))
    assert_same_samples(open_source(folder, split="sub"), list(range(COUNT // 2, COUNT)))
    assert_same_samples(open_source(shards), list(range(COUNT)))
    assert_same_samples(open_source(shards, split="train"), list(range(COUNT)))
    assert_same_samples(open_source(shards / "train-01.tar"), list(range(COUNT // 2, COUNT)))
    assert_same_samples(open_source(shards / "train-0*.tar"), list(range(COUNT)))
    write_tar(shards / "heldout-100-00.tar", sample_files(3))
    assert_same_samples(open_source(shards, split="heldout-100"), [3])
    assert_same_samples(open_source(shards, split="train"), list(range(COUNT)))
    write_tar(tmp_path / "numbered" / "00000.tar", sample_files(0))
    write_tar(tmp_path / "numbered" / "00001.tar", sample_files(1))
    assert_same_samples(open_source(tmp_path / "numbered"), [0, 1])


def test_open_source_errors(folder: Path, shards: Path, tmp_path: Path) -> None:
    write_tar(shards / "test.tar", sample_files(3))
    (tmp_path / "nothing").mkdir()
    cases: list[tuple[Path, str | None, str]] = [
        (shards, None, "has the splits test, train; name one"),
        (shards.parent, None, "has the splits tars; name one"),
        (shards, "val", "no split 'val'"),
        (tmp_path / "missing", None, "no such file"),
        (tmp_path / "missing*.tar", None, "no tar files"),
        (tmp_path / "nothing", None, "no image files"),
        (folder / "0000.png", None, "neither a folder nor"),
        (shards / "test.tar", "train", "not a folder"),
    ]
    for path, split, message in cases:
        with pytest.raises(ValueError, match=message):
            open_source(path, split=split)
    with pytest.raises(ValueError, match="is not a folder"):
        ImageFolder(tmp_path / "missing")


@pytest.mark.usefixtures("datasets_cache")
def test_a_corrupt_parquet_file_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ValueError, match=r"train\.parquet: cannot be opened"):
        open_source(tmp_path / "train.parquet")


def test_a_description_of_another_form_costs_no_picture(tmp_path: Path) -> None:
    """A COCO list, null, a list of boxes (which reads as pairs), a class in words, a caption in Latin-1; each told once."""
    contents = {
        "0.json": b"[1, 2]", "1.json": b"null", "2.json": b'[["x", 1], ["y", 2]]', "3.cls": b"dog", "5.json": b"{",
        "4.txt": "caf\u00e9".encode("latin-1"), "6.txt": "\u00e4".encode(), "7.json": b'{"caption": "\\ud800", "a": 1}',
    }  # fmt: skip
    wanted = [{}, {}, {}, {}, {"caption": "caf\u00e9"}, {}, {"caption": "\u00e4"}, {"a": 1}]
    files = {f"{number}.png": png(number) for number in range(8)} | contents
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    tar = write_tar(tmp_path / "tars" / "t.tar", dict(sorted(files.items())))
    for source in (ImageFolder(tmp_path, recursive=False), TarShards(tar)):
        with pytest.warns(UserWarning, match="are used without it") as told:
            samples = [source.load(index) for index in range(8)]
        assert [sample.metadata for sample in samples] == wanted
        assert len(told) == 3
        for number, sample in enumerate(samples):
            np.testing.assert_array_equal(np.asarray(sample.image), np.asarray(picture(number)))


def test_rival_images_of_one_sample_are_told(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "frames.tar", {f"frame.{number:04d}.png": png(number) for number in range(3)})
    with pytest.warns(UserWarning, match=r"sample frame has several images \(\.0000\.png, \.0001\.png, \.0002\.png\)"):
        assert len(TarShards(tar)) == 1
    masks = write_tar(tmp_path / "masks.tar", {"a.png": png(0), "a.mask.png": png(1)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(TarShards(masks)) == 1


def test_tars_by_a_range_of_numbers(tmp_path: Path) -> None:
    for number in range(8, 12):
        write_tar(tmp_path / f"a-{number:04d}.tar", {f"{number}.png": png(number)})
    source = open_source(tmp_path / "a-{0008..0010}.tar")
    assert [source.key(index) for index in range(len(source))] == ["8", "9", "10"]
    with pytest.raises(ValueError, match=r"a-0012\.tar: there is no such file"):
        open_source(tmp_path / "a-{0011..0012}.tar")


@pytest.mark.parametrize(
    ("name", "content"),
    [("metadata.csv", "id,price\n1,2\n"), ("metadata.jsonl", '{"about": "the camera"}\n'), ("metadata.csv", "")],
)
def test_an_unrelated_table_beside_pictures(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    assert isinstance(open_source(folder), ImageFolder)


@pytest.mark.usefixtures("datasets_cache")
def test_caches_in_a_saved_data_set_do_not_make_it_another(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"photo": {"bytes": png(number), "path": None}, "text": f"picture {number}"} for number in range(3)]
    features = datasets.Features({"photo": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    before = open_source(tmp_path / "saved")
    assert before.load(1).metadata["caption"] == "picture 1"
    saved = datasets.load_from_disk(str(tmp_path / "saved"))
    saved.filter(lambda row: row["text"] != "picture 0", load_from_cache_file=False)
    assert list((tmp_path / "saved").glob("cache-*.arrow"))
    assert open_source(tmp_path / "saved").fingerprint == before.fingerprint
