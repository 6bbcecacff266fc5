"""The wheel: what is in it, that each file has a licence, and that it works without the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from fnmatch import fnmatch
from pathlib import Path

import pytest
from tests.release.lowest import lowest

wheels = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
sdists = pytest.importorskip("hatchling.builders.sdist", reason="hatchling is not installed")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (built,) = wheels.WheelBuilder(str(ROOT)).build(
        directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"]
    )
    return Path(built)


def listed() -> list[str]:
    """The patterns of NOTICE's table of files."""
    return re.findall(r"^    (semhitok/\S+) {2,}\S", (ROOT / "NOTICE").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_file_that_is_not_code_has_a_licence(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    others = [name for name in names if not name.endswith(".py") and ".dist-info/" not in name]
    patterns = listed()
    assert [name for name in others if not any(fnmatch(name, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in others)] == []


def test_the_wheel_has_types_licences_and_no_tests(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert "semhitok/py.typed" in names
    assert {name.rsplit("/", 1)[1] for name in names if "dist-info/licenses/" in name} == {"LICENSE", "NOTICE"}
    assert {name.split("/", 1)[0].split("-")[0] for name in names} == {"semhitok"}
    (metadata,) = (name for name in names if name.endswith("dist-info/METADATA"))
    head = HeaderParser().parsestr(archive.read(metadata).decode())
    assert (head["Name"], head["License-Expression"]) == ("semhitok", "Apache-2.0")
    assert f'__version__ = "{head["Version"]}"' in archive.read("semhitok/__init__.py").decode()
    assert f"version: {head['Version']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {head['Version']} (" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_sdist_has_what_the_wheel_is_built_from(tmp_path: Path):
    (built,) = sdists.SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(built) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    wanted = (
        "pyproject.toml",
        "src/semhitok/checkpoints/nano/model.safetensors",
        "examples/photographs/chelsea.jpg",
        "NOTICE",
    )
    assert [name for name in wanted if name not in names] == []
    assert [
        name for name in names if name.endswith(".whl") or name.startswith(("site/", "docs/notebooks/", ".venv"))
    ] == []


def test_the_unpacked_wheel_works_without_the_repository(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    photograph = ROOT / "examples" / "photographs" / "chelsea.jpg"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "release" / "installed.py"), str(photograph)],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"at {tmp_path / 'installed' / 'semhitok'}:" in done.stdout


def test_lowest_versions_are_read_from_the_bounds():
    assert lowest(["torch>=2.9", "transformers>=5.13,<6"]) == ["torch==2.9", "transformers==5.13"]
