"""Records from jsonl and tars, against what was written; what is wrong is named."""

from __future__ import annotations

import json
import tarfile
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.hostile_data import hostile
from tests.data.records_on_disk import png, scene, write_lines, write_scenes, write_tar

from semhitok.data import json_records
from semhitok.data.images import ImageError
from semhitok.data.json_records import JsonLines
from semhitok.data.record_sources import Pretokenized, RecordTars, open_records
from semhitok.data.records import RecordError, Turn


def test_every_kind_is_read_from_lines(tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png(0))
    chat = {"images": ["pictures/a.png", "pictures/a.png"], "kind": "chat"}
    said = [{"role": "user", "content": "<image> or <image>?"}, {"role": "assistant", "content": "the first"}]
    source = JsonLines(
        write_lines(
            tmp_path / "records.jsonl",
            [
                {"image": "pictures/a.png", "caption": " a cat "},
                {"kind": "text", "text": "only text, ä"},
                chat | {"messages": said},
            ],
        ),
        "caption",
    )
    assert len(source) == 3
    caption, text, talk = (source.read(index, 0) for index in range(3))
    assert (caption.kind, caption.text, len(caption.pictures)) == ("caption", "a cat", 1)
    assert caption.pictures[0].load().size == (32, 32)
    assert (text.kind, text.text, text.pictures) == ("text", "only text, ä", ())
    assert talk.turns == (Turn("user", "<image> or <image>?"), Turn("assistant", "the first"))
    assert len(talk.pictures) == 2


def test_llavas_conversations_get_their_image_in_the_first_question(tmp_path: Path):
    said = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "a cat"}, {"from": "human", "value": "and?"}]
    path = write_lines(tmp_path / "llava.jsonl", [{"image": "a.png", "conversations": said}])
    # The last question has no answer, so nothing could be learned from it.
    assert JsonLines(path, "chat").read(0, 0).turns == (Turn("user", "<image>what?"), Turn("assistant", "a cat"))
    assert JsonLines(path, "chat").read(0, 0).text == ""


def test_scenes_serve_for_captions_prompts_and_chats(tmp_path: Path):
    folder = write_scenes(tmp_path / "scenes")
    captions = RecordTars([folder], "caption")
    assert {captions.read(0, choice).text for choice in range(4)} == set(scene(0)["captions"])
    chats = RecordTars([folder], "chat")
    asked = {tuple(turn.text for turn in chats.read(0, choice).turns) for choice in range(20)}
    pairs = [(each["question"], each["answer"]) for each in scene(0)["qa"]]
    expected = {tuple(text for pair in order for text in pair) for order in permutations(pairs)}
    assert asked == {("<image>" + first, *rest) for first, *rest in expected}
    assert chats.read(0, 1).text == ", ".join(scene(0)["captions"])  # what the chat's image shows, in words
    assert captions.fingerprint != chats.fingerprint
    assert captions.images_fingerprint == chats.images_fingerprint
    assert captions.read(1, 0).pictures[0].load().tobytes() == chats.picture(1).load().tobytes()


def test_tars_may_hold_plain_text(tmp_path: Path):
    source = open_records(write_tar(tmp_path / "text.tar", [{".txt": b"one"}, {".json": b'{"text": "two"}'}]), "text")
    assert [source.read(index, 0).text for index in range(2)] == ["one", "two"]


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("{", "text", ": is not JSON"),
        ("[]", "text", "must be a JSON object, got list"),
        ({"text": "  "}, "text", "has no text in text"),
        ({"caption": "a cat"}, "caption", "needs one image, it has 0"),
        ({"kind": "film"}, "text", "kind must be one of text, caption, text_to_image, chat, got 'film'"),
        ({"messages": [{"role": "user", "content": "?"}]}, "chat", "has no answer"),
        ({"image": "a.png", "qa": []}, "chat", "has no answer"),
        ({"qa": [{"question": "?", "answer": " "}]}, "chat", "has an empty answer"),
        (
            {"qa": [{"question": "<image> <image>?", "answer": "a"}], "image": "a.png"},
            "chat",
            "has 1 images and 2 <image>",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": "a"}]},
            "chat",
            "has 0 images and 1 <image>",
        ),
        ({"messages": [{"role": "robot", "content": "?"}]}, "chat", "needs role and content"),
        ({"qa": [{"question": "?"}]}, "chat", "needs role and content, a question its answer"),
        ({"caption": "a", "image": 3}, "caption", "images must be paths, got 3"),
        ({"caption": "a", "image_ids": [1, 2]}, "caption", "need the fingerprint of their tokenizer"),
        ({"caption": "a", "image_ids": [[1], [2, 3]]}, "caption", "must be whole numbers of shape"),
        ({"caption": "a", "image_ids": [0.5, 10**400]}, "caption", "must be whole numbers of shape"),
        ({"caption": "a", "image_ids": [-5, 2], "tokenizer": "a"}, "caption", "none below 0"),
        ({"qa": [{"question": 3, "answer": "a"}]}, "chat", "content of type int"),
        ({"qa": [{"question": "?", "answer": None}]}, "chat", "content of type NoneType"),
        ({"qa": [{"question": "?", "answer": True}]}, "chat", "content of type bool"),
        ({"qa": [{"question": "?", "answer": "\ud800"}]}, "chat", "has half a surrogate pair"),
        ({"text": "a\udfff"}, "text", "has half a surrogate pair in its text, at 1"),
        ('{"text": ' + "[" * 100_000, "text", ": is not JSON"),
        ('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", "text", ": is not JSON"),
        ('{"text": ' + "9" * 5_000 + "}", "text", ": is not JSON"),
        ({"caption": "a", "image": "a\0.png"}, "caption", "no file can be named"),
        ({"caption": "a", "image": "\ud800.png"}, "caption", "no file can be named"),
        ({"kind": [[[[[[[[[3]]]]]]]]]}, "text", r"got \[\[\[\[\.\.\.\]\]\]\]$"),
    ],
)
def test_bad_records_are_named_with_their_reason(tmp_path: Path, line: object, kind, message: str):
    source = JsonLines(write_lines(tmp_path / "bad.jsonl", [line]), kind)
    with pytest.raises(RecordError, match=f"bad.jsonl line 1.*{message}"):
        source.read(0, 0)


def test_ids_computed_beforehand_come_from_the_record_or_stand_for_a_tars_images(tmp_path: Path):
    line = {"caption": "a", "image_ids": [3, 1], "tokenizer": "abc"}
    picture = JsonLines(write_lines(tmp_path / "ids.jsonl", [line]), "caption").read(0, 0).pictures[0]
    assert (picture.ids.tolist(), picture.tokenizer) == ([3, 1], "abc")  # type: ignore[union-attr]
    tars = RecordTars([write_scenes(tmp_path / "scenes", 3)], "caption")
    source = Pretokenized(tars, np.array([[5, 6], [-1, -1], [7, 8]]), "abc")
    assert source.read(2, 0).pictures[0].ids.tolist() == [7, 8]  # type: ignore[union-attr]
    assert source.read(2, 0).text == tars.read(2, 0).text
    with pytest.raises(RecordError, match="0001: its image could not be read"):
        source.read(1, 0)
    with pytest.raises(ValueError, match="ids of 3 images are needed, got 2"):
        Pretokenized(tars, np.zeros((2, 2)), "abc")


@pytest.mark.parametrize(
    ("name", "content"), [("none.jsonl", None), ("empty.jsonl", b""), ("x.csv", b"a"), ("z.tar", b"z")]
)
def test_what_holds_no_records_is_refused(tmp_path: Path, name: str, content: bytes | None):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        open_records(tmp_path / name, "text")


def test_the_fingerprint_changes_with_the_data(tmp_path: Path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "one"}])
    before = JsonLines(path, "text").fingerprint
    assert JsonLines(path, "text").fingerprint == before
    write_lines(path, [{"text": "one"}, {"text": "two"}])
    assert JsonLines(path, "text").fingerprint != before
    assert json.loads(path.read_text().splitlines()[1]) == {"text": "two"}


def test_images_of_records_stay_in_the_folder_of_the_data_set(tmp_path: Path):
    folder = tmp_path / "set"
    folder.mkdir()
    for place in (tmp_path / "secret.png", folder / "a.png"):
        place.write_bytes(png(0))
    (folder / "link.png").symlink_to("../secret.png")
    (folder / "up").symlink_to("..")
    (folder / "inner.png").symlink_to("a.png")
    outside = ["../secret.png", str(tmp_path / "secret.png"), "x/../../secret.png", "link.png", "up/secret.png"]
    inside = ["a.png", str(folder / "a.png"), "x/../a.png", "inner.png", "up/set/a.png"]
    path = write_lines(folder / "records.jsonl", [{"image": image, "caption": "a"} for image in outside + inside])
    source, trusting = JsonLines(path, "caption"), open_records(path, "caption", allow_outside=True)
    for index, image in enumerate(outside + inside):
        if image in inside:
            assert len(source.read(index, 0).pictures) == 1
        else:
            message = rf"records\.jsonl line {index + 1}: the image '{image}' lies outside .*set, which allow_outside"
            with pytest.raises(RecordError, match=message):
                source.read(index, 0)
        if "x/" not in image:
            assert trusting.read(index, 0).pictures[0].load().size == (32, 32)


HOSTILE_TAR_MEMBERS = {
    "caption that is a number": ({".json": b'{"qa": [{"question": 3, "answer": "a"}]}'}, "content of type int"),
    "nested": ({".json": b"[" * 100_000}, "has a .json that is no JSON object"),
    "surrogate": ({".json": b'{"caption": "\\ud800"}'}, "half a surrogate pair"),
    "no object": ({".json": b"3"}, "has a .json that is no JSON object"),
    "beyond float": ({".json": b'{"image_ids": [0.5, 1' + b"0" * 400 + b"]}"}, "must be whole numbers"),
}


@pytest.mark.parametrize("name", HOSTILE_TAR_MEMBERS)
def test_odd_samples_of_tars_are_named_with_their_reason(tmp_path: Path, name: str):
    members, message = HOSTILE_TAR_MEMBERS[name]
    source = RecordTars([write_tar(tmp_path / "a.tar", [members])], "chat")
    with pytest.raises(RecordError, match=f"0000: .*{message}"):
        source.read(0, 0)


def test_a_sparse_member_of_a_hundred_gigabytes_is_not_read(tmp_path: Path):
    """A header may say any size; only that many bytes of hole must follow, which cost nothing."""
    size = 10**11
    with open(tmp_path / "sparse.tar", "wb") as file:
        for suffix in (".json", ".png"):
            member = tarfile.TarInfo(f"0000{suffix}")
            member.size = size
            file.write(member.tobuf(tarfile.GNU_FORMAT))
            file.seek((size + 511) // 512 * 512, 1)
        file.write(tarfile.NUL * 1024)
    source = RecordTars([tmp_path / "sparse.tar"], "caption")
    with pytest.raises(RecordError, match=r"0000: has 100,000,000,000 bytes, up to 16,777,216 are accepted"):
        source.read(0, 0)
    with pytest.raises(ImageError, match=r"0000\.png: cannot be read: 100,000,000,000 bytes at"):
        source.picture(0).load()


@pytest.mark.parametrize("kind", ["text", "caption", "text_to_image", "chat"])
def test_hostile_records_raise_nothing_but_record_errors(tmp_path: Path, kind: Any):
    random = np.random.default_rng(7)
    values = []
    for _ in range(1500):
        value = hostile(random)
        # Half of them begin as a good record of which one field is something else.
        good = {"image": "a.png", "caption": "a", "text": "b", "qa": [{"question": "?", "answer": "a"}]}
        values.append(good | value if isinstance(value, dict) and random.integers(2) else value)
    lines = [json.dumps(value) for value in values]
    bytes_of = [bytearray(line.encode()) for line in lines]
    for line in bytes_of[::3]:  # and some are damaged
        line[random.integers(len(line))] = random.choice([0, 34, 92, 123, 255])
    path = tmp_path / "hostile.jsonl"
    path.write_bytes(b"\n".join(bytes(line).replace(b"\n", b" ") for line in bytes_of) + b"\n")
    described = [{".json": bytes(line), ".png": b"no image"} for line in bytes_of]
    tars = RecordTars([write_tar(tmp_path / "hostile.tar", described)], kind)
    good_ones, reasons = 0, []
    for source in (JsonLines(path, kind), tars):
        assert len(source) == len(values)
        for index in range(len(source)):
            try:
                record = source.read(index, index)
            except RecordError as error:
                reasons.append((source.name(index), str(error)))
                continue
            good_ones += 1
            for text in (record.text, *(turn.text for turn in record.turns)):
                text.encode()
            for picture in record.pictures:
                assert picture.file is None or picture.file.parent == tmp_path
    assert min(good_ones, len(reasons)) > 100
    for name, reason in reasons:
        assert name in reason
        assert "\n" not in reason
        assert len(reason) < 500


def test_a_json_array_as_llava_has_it(tmp_path: Path):
    """With spaces, escapes, brackets in strings and letters of several bytes; its answers may be "from" an assistant."""
    said = [{"from": "human", "value": "<image>\n[w\u00e4s?]"}, {"from": "assistant", "value": '"}]", he said'}]
    records = [{"id": str(number), "image": f"{number}.png", "conversations": said} for number in range(3)]
    path = tmp_path / "llava.json"
    for text in (
        json.dumps(records, ensure_ascii=False),
        json.dumps(records, indent=2),
        f"\n {json.dumps(records)} \n",
    ):
        path.write_text(text, encoding="utf-8")
        source = open_records(path, "chat")
        assert len(source) == 3
        for index in range(3):
            record = source.read(index, 0)
            assert [turn.text for turn in record.turns] == [said[0]["value"], said[1]["value"]]
            assert [turn.role for turn in record.turns] == ["user", "assistant"]
            assert record.pictures[0].file == tmp_path / f"{index}.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}', "is no JSON array of records"),
        ("[]", "is empty"),
        ('[{"a": 1} {"b": 2}]', "from byte 10 on"),
        ('[{"a": 1}, ', "from byte 11 on"),
        ("[" * 100_000, "is not JSON from byte 1 on"),
    ],
)
def test_a_json_file_that_is_no_array_of_records(tmp_path: Path, text: str, message: str):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_records(tmp_path / "a.json", "chat")


def test_messages_in_parts(tmp_path: Path):
    asked = [{"type": "text", "text": "what is "}, {"type": "image", "image": "a.png"}, {"type": "text", "text": "?"}]
    said = [{"role": "user", "content": asked}, {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]}]
    path = write_lines(tmp_path / "parts.jsonl", [{"messages": said}, {"messages": [{"role": "user", "content": [3]}]}])
    record = JsonLines(path, "chat").read(0, 0)
    assert record.turns == (Turn("user", "what is <image>?"), Turn("assistant", "a cat"))
    assert [picture.file for picture in record.pictures] == [tmp_path / "a.png"]
    with pytest.raises(RecordError, match="line 2: a message needs role and content"):
        JsonLines(path, "chat").read(1, 0)


def test_a_mark_is_an_image_only_where_nothing_else_says_so(tmp_path: Path):
    """In texts of records with images that are no parts of messages, as LLaVA has them; elsewhere it is text."""
    mark, asked, part = "<image>", "what does <image> mean?", {"type": "image", "image": "a.png"}

    def chat(content: object, answer: str = "a <image>", **fields: object) -> dict:
        return {
            "kind": "chat",
            "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}],
        } | fields

    lines = {
        "no image": (chat(asked), [(asked,), ("a <image>",)]),
        "an image beside the texts": (chat(asked, "a", image="a.png"), [("what does ", " mean?"), ("a",)]),
        "an image part": (chat([part, {"type": "text", "text": asked}]), [("", asked), ("a <image>",)]),
        "an image part among marks": (
            chat([{"type": "text", "text": mark}, part, {"type": "text", "text": asked}]),
            [(mark, asked), ("a <image>",)],
        ),
        "parts of text": (chat([{"type": "text", "text": asked}], "a", image="a.png"), [("", asked), ("a",)]),
        "a text": ({"kind": "text", "text": asked}, []),
        "a caption": ({"kind": "caption", "caption": asked, "image": "a.png"}, []),
        "a prompt": ({"kind": "text_to_image", "caption": asked, "image": "a.png"}, []),
    }
    source = JsonLines(write_lines(tmp_path / "marks.jsonl", [line for line, _ in lines.values()]), "text")
    for index, (name, (_, pieces)) in enumerate(lines.items()):
        record = source.read(index, 0)
        assert [turn.pieces for turn in record.turns] == pieces, name
        assert len(record.pictures) == (sum(map(len, pieces)) - len(pieces) if pieces else int(name != "a text")), name
        assert record.text == ("" if pieces else asked)
        assert [turn.text for turn in record.turns] == [mark.join(each) for each in pieces]


def test_records_much_too_long_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said = [{"from": "human", "value": "<image>" * 4}, {"from": "gpt", "value": "a"}]
    lines = [
        {"kind": "text", "text": "a" * 300},
        {"image": ["a.png"] * 4, "conversations": said},
        {"kind": "text", "text": "a"},
    ]
    source = JsonLines(write_lines(tmp_path / "long.jsonl", lines), "chat")
    tars = open_records(write_tar(tmp_path / "long.tar", [{".txt": b"a" * 300}, {".txt": b"a"}]), "text")
    monkeypatch.setattr(json_records, "MAX_DESCRIPTION_BYTES", 200)
    monkeypatch.setattr(json_records, "MAX_IMAGES", 3)
    for refused, index, message in (
        (source, 0, r"line 1: has 329 bytes, up to 200 are accepted"),
        (source, 1, r"line 2: has 4 images, up to 3 are accepted"),
        (tars, 0, "has 300 bytes, up to 200 are accepted"),
    ):
        with pytest.raises(RecordError, match=message):
            refused.read(index, 0)
    assert source.read(2, 0).text == tars.read(1, 0).text == "a"
