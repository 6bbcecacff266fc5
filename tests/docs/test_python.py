"""The README's lines for a loaded model run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from tests.data.records_on_disk import png

PAGE = Path(__file__).parents[2] / "README.md"


def test_the_lines_for_a_loaded_model_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "photographs").mkdir()
    for path in ("photo.jpg", "photographs/one.jpg", "photographs/two.jpg"):
        (tmp_path / path).write_bytes(png(0))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (lines,) = (block for block in blocks if "load_tokenizer" in block)
    exec(lines, {})
    assert sorted(path.name for path in Path("photographs").glob("*.png")) == ["one.png", "two.png"]
    with Image.open("photo.jpg") as original, Image.open("photographs/one.png") as restored:
        assert restored.size == original.size
    assert Image.open("rabbit.png").getextrema() != ((128, 128),) * 3
    assert capsys.readouterr().out.strip()
