"""Image data as it lies about: descriptions of another form, rival images, unrelated tables, caches of other programs."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from tests.data.pictures_on_disk import picture, png, sample_files, write_tar

from semhitok.data.sources import ImageFolder, TarShards, open_source


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
def test_an_unrelated_table_beside_pictures(tmp_path: Path, name: str, content: str) -> None:
    for file, data in sample_files(0).items():
        (tmp_path / file).write_bytes(data)
    (tmp_path / name).write_text(content)
    assert isinstance(open_source(tmp_path), ImageFolder)


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
