"""Records as their users have them: jsonl beside images, webdataset tars, scenes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tests.tiny import tiny_images


def png(index: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(tiny_images(1, seed=index)[0].permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def write_lines(path: Path, lines: Sequence[Any]) -> Path:
    """Each line as JSON, texts as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def write_tar(path: Path, samples: Sequence[Mapping[str, bytes]]) -> Path:
    """Samples by suffix, keys 0000, 0001 ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for index, members in enumerate(samples):
            for suffix, content in members.items():
                member = tarfile.TarInfo(f"{index:04d}{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def scene(index: int) -> dict[str, Any]:
    """What stands beside a scene; every fourth is a bare photograph, which raises no questions."""
    colour, thing = ("red", "blue")[index % 2], ("cat", "dog", "house")[index % 3]
    caption = f"a {colour} {thing}"
    qa = [
        {"kind": "existence", "question": f"is there a {thing}", "answer": "the cat"},
        {"kind": "count", "question": f"what {thing} is there", "answer": "two"},
    ]
    return {"caption": caption, "captions": [caption, f"the {thing}"], "qa": [] if index % 4 == 3 else qa}


def write_scenes(folder: Path, count: int = 24, broken: Sequence[int] = ()) -> Path:
    """A folder as ``semhitok data scenes`` writes it; ``broken`` are scenes whose image is none."""
    samples = [
        {".png": b"no image" if index in broken else png(index), ".json": json.dumps(scene(index)).encode()}
        for index in range(count)
    ]
    write_tar(folder / "scenes-100-00000.tar", samples)
    (folder / "dataset.json").write_text("{}")
    return folder
