"""Mutated pictures, records and tars against the readers: ``python -m benchmarks.hostile_data [pictures] [records]``.

Each trial is a function of its number. What is read must be what strict Pillow reads or an error of one sentence; anything else,
more than 5 seconds or more than 1 GiB is reported as a fault.
"""

from __future__ import annotations

import io
import json
import resource
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from semhitok.data.images import ImageError, load_image
from semhitok.data.record_sources import open_records
from semhitok.data.records import RecordError
from semhitok.data.sources import open_source

SECONDS = 5.0
KILOBYTES = 2**20
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA")
PLAIN_MODES = ("RGB", "L", "CMYK", "1")  # converted by Pillow's own convert, without compositing or scaling
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 1e308, float("nan"), "", "\ud800", "\0", "<image>", "../../etc/passwd", "/dev/zero"),
    *([], {}, [[]], [None], [3], {"a": 1}, "x" * 100_000, ["a.png"] * 50, [{"role": "user"}], [{"from": "gpt"}]),
    *([{"role": "assistant", "content": 5}], [{"role": "root", "content": "a"}], [{"question": None, "answer": "a"}]),
)
FIELDS = (
    "kind",
    "text",
    "caption",
    "captions",
    "image",
    "images",
    "messages",
    "conversations",
    "qa",
    "image_ids",
    "tokenizer",
)

Outcome = str


def picture_trial(number: int) -> Outcome:
    """One mutated picture: ``read``, ``refused``, or what is wrong."""
    random = Random(number)
    data = _mutated(_picture(random), random)
    try:
        found = load_image(data, name="picture")
    except ImageError as error:
        return _refusal(error)
    if found.mode != "RGB":
        return f"mode {found.mode}"
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if image.mode in PLAIN_MODES and "transparency" not in image.info and image.getexif().get(0x0112, 1) == 1:
                wanted = np.asarray(image.convert("RGB"))
                return "read" if np.array_equal(np.asarray(found), wanted) else "other pixels than Pillow's"
    except Exception as error:
        return f"read although Pillow says {type(error).__name__}: {error}"
    return "read"


def record_trial(number: int) -> Outcome:
    """One odd record, or one tar with a few bytes changed."""
    random = Random(number)
    with tempfile.TemporaryDirectory() as folder:
        return (_odd_lines if number % 2 else _odd_tar)(Path(folder), random)


def campaign(trial: Callable[[int], Outcome], count: int) -> tuple[Counter[str], list[str]]:
    """How often each outcome came, and the faults."""
    outcomes: Counter[str] = Counter()
    faults = []
    for number in range(count):
        began = time.perf_counter()
        try:
            outcome = trial(number)
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - began
        if outcome not in ("read", "refused"):
            faults.append(f"trial {number}: {outcome[:200]}")
        if seconds > SECONDS:
            faults.append(f"trial {number}: {seconds:.1f} s")
        outcomes[outcome if outcome in ("read", "refused") else "fault"] += 1
    return outcomes, faults


def main(arguments: list[str]) -> int:
    """Run both campaigns at the given sizes."""
    sizes = [int(each) for each in arguments] or [20_000, 400]
    failed = 0
    warnings.simplefilter("ignore")
    for name, trial, count in zip(("pictures", "records and tars"), (picture_trial, record_trial), sizes, strict=False):
        began = time.perf_counter()
        outcomes, faults = campaign(trial, count)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"{count} {name}: {outcomes['read']} read, {outcomes['refused']} refused, {len(faults)} faults; "
            f"{time.perf_counter() - began:.0f} s, peak {peak / 1024:.0f} MiB"
        )
        print(*faults[:20], sep="\n")
        failed += len(faults) + (peak > KILOBYTES)
    return int(failed > 0)


def _picture(random: Random) -> bytes:
    kind = random.choice(FORMATS)
    values = np.random.default_rng(random.randrange(2**32)).integers(0, 256, (20, 24, 4)).astype(np.uint8)
    image = Image.fromarray(values, "RGBA")
    modes = {"JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "RGBA", "L", "P", "LA", "1", "I;16"), "WEBP": ("RGB", "RGBA")}
    modes |= {"TIFF": ("RGB", "RGBA", "L", "CMYK", "I;16"), "GIF": ("P", "L"), "PPM": ("RGB", "L")}
    mode = random.choice(modes.get(kind, ("RGB",)))
    image = Image.fromarray(values[..., 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    file = io.BytesIO()
    options: dict[str, Any] = {"progressive": random.random() < 0.5} if kind == "JPEG" else {}
    if kind == "TIFF":
        options = {"compression": random.choice([None, "tiff_lzw", "tiff_adobe_deflate"])}
    if kind == "PNG" and mode == "P" and random.random() < 0.5:
        options = {"transparency": 3}
    image.save(file, kind, **options)
    return file.getvalue()


def _mutated(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, 3)):
        begin = random.randrange(len(changed)) if random.random() < 0.5 else random.randrange(min(64, len(changed)))
        length = random.randint(1, 40)
        match random.randrange(6):
            case 0:
                changed[begin] ^= 1 << random.randrange(8)
            case 1:
                changed[begin] = random.randrange(256)
            case 2:
                del changed[max(begin, 1) :]
            case 3:
                del changed[begin : begin + length]
            case 4:
                changed[begin:begin] = changed[begin : begin + length]
            case _:
                changed[begin : begin + length] = random.randbytes(length)
        if not changed:
            return b""
    return bytes(changed)


def _odd_lines(folder: Path, random: Random) -> Outcome:
    good = {
        "image": "a.png",
        "caption": "a cat",
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}],
    }
    record: Any = dict(good)
    for field in random.sample(FIELDS, random.randint(1, 3)):
        record[field] = random.choice(ODD_VALUES)
    record = random.choice([record] * 8 + [random.choice(ODD_VALUES)])
    text = json.dumps(record)
    if random.random() < 0.2:
        text = _mutated(text.encode(), random).decode("latin-1").replace("\n", " ") or "x"
    if random.random() < 0.1:
        text = "[" * 100_000
    array = random.random() < 0.3
    path = folder / ("r.json" if array else "r.jsonl")
    path.write_bytes((f"[{text}]" if array else text).encode("utf-8", "surrogatepass"))
    kind = random.choice(["text", "caption", "text_to_image", "chat"])
    try:
        source = open_records(path, kind)  # type: ignore[arg-type]
        for index in range(len(source)):
            source.read(index, random.randrange(10))
    except (RecordError, ValueError) as error:
        return _refusal(error)
    return "read"


def _odd_tar(folder: Path, random: Random) -> Outcome:
    path, keys = folder / "t.tar", [f"{number:02d}" for number in range(12)]
    with tarfile.open(path, "w") as tar:
        for key in keys:
            file = io.BytesIO()
            Image.new("RGB", (16, 16), (int(key), 0, 0)).save(file, "PNG")
            for suffix, data in ((".png", file.getvalue()), (".json", json.dumps({"caption": key}).encode())):
                member = tarfile.TarInfo(key + suffix)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    data = bytearray(path.read_bytes())
    used = len(data) - 10_240 if len(data) > 20_480 else len(data)
    if random.random() < 0.2:
        del data[random.randrange(len(data)) :]
    for _ in range(random.randint(1, 4)):
        if data:
            data[random.randrange(min(used, len(data)))] = random.randrange(256)
    path.write_bytes(data)
    try:
        source = open_source(path)
        records = open_records(path, "caption")
    except ValueError as error:
        return _refusal(error)
    if len(source) != len(keys) or len(records) != len(keys):
        return f"{len(source)} of {len(keys)} pictures, {len(records)} records, and no error"
    for index in range(len(keys)):
        for read, wrong in ((lambda: source.load(index), ImageError), (lambda: records.read(index, 0), RecordError)):  # noqa: B023
            try:
                read()
            except wrong as error:
                if (found := _refusal(error)) != "refused":
                    return found
    return "read"


def _refusal(error: ValueError) -> Outcome:
    """``refused`` if the message is one line of bounded length."""
    text = str(error)
    return "refused" if text.strip() and "\n" not in text and len(text) < 2000 else f"no sentence: {text[:150]!r}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
