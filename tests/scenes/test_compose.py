"""Scenes: the stated ground truth against what the pixels show.

The made-up cut-outs are red and the photographs hold no red, so the red pixels say where the objects are.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from semhitok.scenes.compose import Scene, caption_of, compose, relations_between
from semhitok.scenes.naming import content_words
from semhitok.scenes.placing import SceneObject, overlap
from semhitok.scenes.splits import Material

SIZE = 96


@pytest.fixture(scope="module")
def scenes(everything: Material) -> list[Scene]:
    return [compose(5, index, SIZE, SIZE, everything) for index in range(150)]


def test_same_number_same_scene(everything: Material) -> None:
    one, again = (compose(5, 17, SIZE, SIZE, everything) for _ in range(2))
    assert np.array_equal(one.image, again.image)
    assert one.objects == again.objects
    other = compose(6, 17, SIZE, SIZE, everything)
    assert not np.array_equal(one.image, other.image)


def test_shapes(everything: Material) -> None:
    assert compose(0, 0, 64, 128, everything).image.shape == (64, 128, 3)
    assert compose(0, 0, 64, 128, everything).image.dtype == np.uint8


def test_boxes_are_tight_around_what_is_seen(scenes: list[Scene]) -> None:
    checked = 0
    for scene in scenes:
        red = scene.image[..., 0] > 60
        if not scene.objects:
            assert not red.any()
            continue
        inside = np.zeros_like(red)
        for item in scene.objects:
            left, top, right, bottom = item.box
            assert 0 <= left < right <= SIZE
            assert 0 <= top < bottom <= SIZE
            inside[top:bottom, left:right] = True
        assert not (red & ~inside).any()
        if len(scene.objects) == 1:
            rows, columns = np.nonzero(red)
            found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert np.abs(found - np.array(scene.objects[0].box)).max() <= 1  # soft edges
            checked += 1
    assert checked > 20


def _regions(mask: np.ndarray) -> int:
    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    return int(labels.max())


def test_as_many_things_as_stated(scenes: list[Scene]) -> None:
    """Objects hardly overlap, so connected red regions count them, but for the few that touch."""
    counts = [(_regions(scene.image[..., 0] > 120), len(scene.objects)) for scene in scenes]
    assert np.mean([found == stated for found, stated in counts]) > 0.9
    assert all(found <= stated for found, stated in counts)
    for scene in scenes:
        boxes = [item.box for item in scene.objects]
        assert all(overlap(a, b) <= 0.05 for i, a in enumerate(boxes) for b in boxes[:i])


def test_at_least_half_is_photographic(scenes: list[Scene]) -> None:
    for scene in scenes:
        drawn = [item for item in scene.objects if item.style != "photo"]
        assert scene.photographic >= 0.5
        if len(drawn) == len(scene.objects):
            assert scene.photographic == pytest.approx((scene.image[..., 0] < 60).mean(), abs=0.03)


def test_a_quarter_is_bare(scenes: list[Scene]) -> None:
    bare = np.mean([not scene.objects for scene in scenes])
    assert 0.15 < bare < 0.36
    assert {len(scene.objects) for scene in scenes} == {0, 1, 2, 3, 4}


def test_the_background_does_not_show_what_is_pasted(scenes: list[Scene]) -> None:
    for scene in scenes:
        behind = {word for subject in scene.background_subjects for word in content_words(subject)}
        assert not behind & {word for item in scene.objects for word in content_words(item.concept)}


def test_object_counts_can_be_chosen(everything: Material) -> None:
    made = [compose(1, i, SIZE, SIZE, everything, bare_share=0.0, object_counts=(2,)) for i in range(20)]
    assert {len(scene.objects) for scene in made} == {2}


def _object(concept: str, box: tuple[int, int, int, int]) -> SceneObject:
    return SceneObject(concept, concept, "tool", "emoji", box)


def test_relations_by_hand() -> None:
    left, right, below = (
        _object("axe", (0, 40, 20, 60)),
        _object("owl", (70, 45, 90, 65)),
        _object("bus", (5, 80, 25, 100)),
    )
    assert set(relations_between([left, right, below], 100, 100)) == {
        (0, "left of", 1), (1, "right of", 0), (0, "above", 2), (2, "below", 0), (1, "right of", 2), (2, "left of", 1),
    }  # fmt: skip
    assert relations_between([left, _object("axe", (70, 45, 90, 65))], 100, 100) == ()  # which axe?
    assert relations_between([left, _object("owl", (5, 44, 25, 64))], 100, 100) == ()  # too close to tell


def test_captions_by_hand() -> None:
    assert caption_of(["owl", "axe", "owl"], "green grass") == "two owls and an axe in front of green grass"
    assert caption_of(["scissors"], "a lake") == "scissors in front of a lake"
    assert caption_of(["a", "b", "c"], "d") == "an a, a b and a c in front of d"
