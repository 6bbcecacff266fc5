"""The examples of docs/serve.md run as they stand against a live server, but for its port; so does the demonstration."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra server is not installed")

from PIL import Image
from tests.server.live import Live, serving

from semhitok.inference.served_model import ServedModel

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(ServedModel.load("mllm_nano", "cpu", max_pixels=1_000_000), name="mllm_nano") as server:
        yield server


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "examples" / "photographs" / "chelsea.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_lines_of_python_run(live: Live, here: Path, capsys):
    (lines,) = blocks("python")
    assert ADDRESS in lines
    exec(lines.replace(ADDRESS, live.url), {})
    said = capsys.readouterr().out.split()
    assert len(said) >= 3, "an answer, a number of tokens, and the answer once more"
    sizes = {Image.open(path).size for path in here.glob("rabbit*.png")}
    assert (sizes, len(list(here.glob("rabbit*.png")))) == ({(64, 64)}, 2)


def test_the_lines_of_curl_run(live: Live, here: Path):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    lines = "\n".join(blocks("bash"))
    assert lines.count(ADDRESS) == lines.count("curl ") >= 5
    done = subprocess.run(
        ["bash", "-eu", "-c", lines.replace(ADDRESS, live.url)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["choices"][0]["message"]["content"]
    assert json.loads((here / "bananas.json").read_text())["data"][0]["seed"] == 3
    assert np.load(here / "ids.npy").shape == (1, 8, 8)
    with Image.open(here / "restored.png") as restored:
        assert np.array_equal(np.load(here / "pixels.npy")[0], np.asarray(restored))


def test_the_demonstration(live: Live, tmp_path: Path, capsys):
    spec = importlib.util.spec_from_file_location("server_demo", ROOT / "examples" / "server_demo.py")
    assert spec is not None
    assert spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    demo.demonstrate(live.url, tmp_path)
    assert "64 tokens of 8192" in capsys.readouterr().out
    for name in ("rabbit.png", "scene.png"):
        assert Image.open(io.BytesIO((tmp_path / name).read_bytes())).size == (64, 64)
