"""What the tab Codes shows: tokens, their patches, sub-codebooks, changes and mixtures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.studio.pieces import Piece, image_of

from semhitok.studio import codes


@pytest.fixture(scope="module")
def photographs(pictures) -> list[str]:
    return [str(path) for path in sorted(pictures.glob("*.png"))]


@pytest.fixture(scope="module")
def editing(workspace, models, photographs) -> codes.Editing:
    return codes.open_image(workspace, photographs[0], models["one"])


def test_every_patch_is_a_button_and_those_of_the_same_code_are_marked(editing):
    page = Piece(codes.original_grid(editing))
    buttons = page.all("button")
    assert [button["data-pick"] for button in buttons] == [str(position) for position in range(16)]
    semantic = editing.codes.semantic_ids.tolist()
    chosen = semantic[editing.position]
    for position, button in enumerate(buttons):
        k, j = editing.codes.at(position)
        assert button["aria-label"].endswith(f"semantic code {k}, pixel code {j}")
        assert (button["aria-pressed"] == "true") == (button["tabindex"] == "0") == (position == editing.position)
        assert ("alike" in button["class"]) == (semantic[position] == chosen and position != editing.position)
    assert semantic.count(chosen) == max(semantic.count(code) for code in semantic)


def test_a_changed_token_changes_the_picture_and_is_marked(editing):
    k, j = editing.codes.at(3)
    at_3 = replace(editing, position=3)
    changed = codes.change_token(at_3, k, (j + 1) % 4)
    assert changed.changed == [3]
    before, after = (image_of(Piece(codes.decoded(each)).all("img")[0]) for each in (at_3, changed))
    assert np.asarray(before).tobytes() != np.asarray(after).tobytes()
    assert "1 token changed" in Piece(codes.decoded(changed)).text
    marked = Piece(codes.original_grid(replace(changed, position=0))).all("button")
    assert [position for position, button in enumerate(marked) if "changed" in button["class"]] == [3]
    assert f"{k} of 16" in Piece(codes.token_facts(changed)).text


def test_the_sub_codebook_has_a_button_for_each_pixel_code(editing):
    page = Piece(codes.sub_codebook(editing))
    pressed = [button["aria-pressed"] for button in page.all("button")]
    assert [button["aria-label"] for button in page.all("button")] == [f"pixel code {j}" for j in range(4)]
    assert pressed.index("true") == editing.codes.at(editing.position)[1]
    assert len({image["src"] for image in page.all("img")}) == 4


def test_other_patches_have_the_same_code_and_are_not_the_chosen_one(workspace, models, editing, pictures):
    index = workspace.patches(models["one"], str(pictures))
    semantic = index.found.layout.split(index.found.ids_IN)[0]
    for position in range(16):
        here = replace(editing, position=position)
        k, _ = here.codes.at(position)
        count = int((semantic == k).sum()) - 1
        page = Piece(codes.other_patches(workspace, here, str(pictures)))
        shown = page.all("img")
        assert len(shown) == min(count, codes.PATCHES_SHOWN)
        own = f"000.png, row {position // 4 + 1}, column {position % 4 + 1}"
        assert own not in [image["alt"] for image in shown]
        if not count:
            assert f"has semantic code {k}" in page.text


def test_mixtures_are_those_of_the_python_api(workspace, models, photographs):
    page = Piece(codes.mix(workspace, photographs[0], photographs[1], models["one"]))
    one, two = (codes.open_image(workspace, path, models["one"]).codes for path in photographs[:2])
    wanted = [one, one.with_pixel_codes_of(two), two.with_pixel_codes_of(one), two]
    for image, mixture in zip(page.all("img"), wanted, strict=True):
        assert np.array_equal(np.asarray(image_of(image)), np.asarray(mixture.picture()))
    assert "Choose a second photograph" in codes.mix(workspace, photographs[0], None, models["one"])


def test_bad_input_is_a_sentence(workspace, models, editing, photographs, tmp_path):
    with pytest.raises(ValueError, match="has no semantic codes"):
        codes.open_image(workspace, photographs[0], models["uni"])
    with pytest.raises(ValueError, match="semantic codes are 0 to 15, got 99"):
        codes.change_token(editing, 99, 0)
    with pytest.raises(ValueError, match="needs a semantic code and a pixel code"):
        codes.change_token(editing, None, 0)
    with pytest.raises(ValueError, match="holds no image files"):
        codes.other_patches(workspace, editing, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        codes.other_patches(workspace, editing, str(tmp_path / "nosuch"))
