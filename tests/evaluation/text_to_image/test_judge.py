"""The judge: peaks and comparison by hand, its loss and thresholds by brute force, its fit on coloured squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.evaluation.scene_tars import (
    COLOURS,
    GRID,
    SIZE,
    CoarseTokenizer,
    mean_colours,
    random_scenes,
    scene,
    write_scenes,
)

from semhitok.data.transforms import to_float
from semhitok.evaluation.text_to_image.judge import Found, Judge, JudgeHead, peaks_of
from semhitok.evaluation.text_to_image.judge_features import COARSE, FINE, IMAGE_SIZE, lite2_grid
from semhitok.evaluation.text_to_image.judge_scores import compare, holds, judge_recall
from semhitok.evaluation.text_to_image.judge_training import (
    THRESHOLDS,
    JudgeConfig,
    best_thresholds,
    fit_judge,
    focal_loss,
    targets_of,
)
from semhitok.scenes.truth import Placed, SceneTruth, read_scenes, relations_of
from semhitok.teachers import EfficientNetLiteConfig, EfficientNetLiteModel

CONFIG = JudgeConfig(width=32, epochs=12, learning_rate=1e-2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("squares"), random_scenes(300))


@pytest.fixture(scope="module")
def judge(folder):
    return fit_judge(folder, CoarseTokenizer(), seed=1, features=mean_colours(), config=CONFIG)


def stub(thresholds=(0.5, 0.2)):
    return Judge(JudgeHead(3, 2, 4), mean_colours(), ("cat", "dog"), torch.tensor(thresholds), "")


def test_peaks_are_local_maxima_and_a_plateau_is_one():
    heat = torch.zeros(1, 1, 6, 6)
    heat[0, 0, 0, 0] = 0.9  # in the corner
    heat[0, 0, 2, 3], heat[0, 0, 3, 4] = 0.7, 0.6  # the second is a neighbour of the first
    heat[0, 0, 5, 1] = heat[0, 0, 5, 2] = 0.8
    above = peaks_of(heat) & (heat > 0.1)
    assert above[0, 0].nonzero().tolist() == [[0, 0], [2, 3], [5, 1]]
    random = torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(peaks_of(random), random == F.max_pool2d(random, 3, stride=1, padding=1))


def test_things_are_peaks_above_the_threshold_of_their_concept():
    heat = torch.zeros(2, 2, 4, 4)
    heat[0, 0, 0, 1], heat[0, 0, 3, 3] = 0.55, 0.45  # the second is below 0.5
    heat[0, 1, 2, 0], heat[0, 1, 0, 3], heat[0, 1, 3, 0] = 0.3, 0.9, 0.25  # the third touches the first
    first, second = stub().find_in_heat(heat)
    assert second == []
    assert [(thing.concept, thing.x, thing.y) for thing in first] == [
        ("dog", 0.875, 0.125),
        ("cat", 0.375, 0.125),
        ("dog", 0.125, 0.625),
    ]
    assert [thing.score for thing in first] == pytest.approx([0.9, 0.55, 0.3])


def test_comparison_by_hand():
    truths = [
        SceneTruth((Placed("cat", 0.2, 0.5), Placed("dog", 0.8, 0.5)), ((0, "left of", 1), (1, "right of", 0)), ()),
        SceneTruth((Placed("cat", 0.2, 0.5), Placed("cat", 0.8, 0.5)), (), ()),
        SceneTruth((Placed("dog", 0.5, 0.5), Placed("house", 0.5, 0.9)), ((0, "above", 1),), ()),
        SceneTruth((), (), ()),
    ]
    found = [
        [Found("cat", 0.25, 0.5, 0.9), Found("dog", 0.7, 0.5, 0.8)],
        [Found("cat", 0.2, 0.5, 0.9)],
        [Found("dog", 0.5, 0.9, 0.9), Found("house", 0.5, 0.5, 0.8), Found("house", 0.1, 0.5, 0.3)],
        [Found("bird", 0.5, 0.5, 0.5)],
    ]
    scores = compare(found, truths)
    assert (scores.recall, scores.precision) == (1.0, 5 / 6)
    assert scores.count == 3 / 5  # one cat too few, one house too many
    assert scores.place == 2 / 3  # the last relation is upside down
    assert compare([[]], [SceneTruth((), (), ())]).recall is None
    assert "recall 100.0 %, precision 83.3 %, count 60.0 %" in scores.sentence()


def test_a_relation_is_judged_at_the_most_certain_things():
    things = [Found("cat", 0.2, 0.5, 0.9), Found("dog", 0.6, 0.5, 0.8), Found("cat", 0.9, 0.5, 0.3)]
    assert holds(things, "cat", "left of", "dog")
    assert not holds(things, "dog", "left of", "cat")
    assert not holds(things, "cat", "left of", "bird")
    near = [Found("cat", 0.5, 0.5, 0.9), Found("dog", 0.6, 0.5, 0.8)]  # 10 % apart: nothing is stated
    assert not holds(near, "cat", "left of", "dog")


def test_relations_from_centres_are_those_of_the_composer():
    for each in random_scenes(40, seed=5):
        centres = [
            Placed(thing.concept, (thing.box[0] + thing.box[2]) / 2 / SIZE, (thing.box[1] + thing.box[3]) / 2 / SIZE)
            for thing in each.objects
        ]
        assert relations_of(centres) == set(each.relations)


def test_loss_leaves_neighbours_out():
    positive, counted = targets_of([[(0, 0, 0), (1, 2, 2)], [(1, 1, 3), (1, 1, 4)]], 2, 5)
    assert positive.nonzero().tolist() == [[0, 0, 0, 0], [0, 1, 2, 2], [1, 1, 1, 3], [1, 1, 1, 4]]
    assert (~counted).sum(dim=(2, 3)).tolist() == [[3, 8], [0, 7]]  # 9 cells and 3 at the edge, two of them centres
    logits = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    cross_entropy = F.binary_cross_entropy_with_logits(logits, positive.float(), counted.float(), reduction="sum") / 4
    assert focal_loss(logits, positive, counted, gamma=0.0) == pytest.approx(float(cross_entropy), rel=1e-5)
    chance = torch.sigmoid(logits)
    by_hand = sum(
        -((1 - p) ** 2) * np.log(p) if positive[place] else -(p**2) * np.log(1 - p)
        for place in map(tuple, counted.nonzero().tolist())
        for p in [float(chance[place])]
    )
    assert focal_loss(logits, positive, counted, gamma=2.0) == pytest.approx(by_hand / 4, rel=1e-4)


def test_thresholds_have_the_best_f1():
    random = np.random.default_rng(0)
    shown = random.random(200) < 0.3
    highest = np.clip(random.normal(0.3 + 0.25 * shown, 0.15), 0, 1)
    one = best_thresholds(torch.tensor(highest)[:, None], torch.tensor(shown)[:, None])
    f1 = [
        2 * np.sum((highest >= t) & shown) / (np.sum(highest >= t) + np.sum(shown)) for t in THRESHOLDS.double().numpy()
    ]
    assert float(one) == pytest.approx(float(THRESHOLDS[int(np.argmax(f1))]))
    # A concept that no held-back scene shows goes by the others.
    with_unseen = torch.tensor(np.stack([highest, np.zeros(200)], axis=1))
    two = best_thresholds(with_unseen, torch.tensor(np.stack([shown, np.zeros(200, dtype=bool)], axis=1)))
    assert two.tolist() == [float(one)] * 2


def test_learns_coloured_squares(judge, tmp_path):
    test = random_scenes(60, seed=9)
    scenes = read_scenes(write_scenes(tmp_path, test), SIZE)
    scores = judge_recall(judge, to_float(scenes.images), scenes.truths)
    assert judge.concepts == tuple(sorted(COLOURS))
    assert min(scores.recall, scores.precision, scores.count) > 0.9
    assert scores.place > 0.8  # a cell is as wide as the margin
    untrained = Judge(JudgeHead(3, 3, 4), mean_colours(), judge.concepts, judge.thresholds_K, "")
    assert judge_recall(untrained, to_float(scenes.images), scenes.truths).recall < 0.2
    (only,) = judge.find(to_float(torch.from_numpy(scene([("dog", 20, 4)]).image).permute(2, 0, 1))[None])
    assert [thing.concept for thing in only] == ["dog"]
    assert (only[0].x, only[0].y) == pytest.approx((23 / SIZE, 7 / SIZE), abs=0.7 / GRID)


def test_every_second_scene_goes_through_the_tokenizer(folder):
    class Dark(CoarseTokenizer):
        def decode(self, ids):
            return super().decode(ids) * 0 - 1

    tokenizer = Dark()
    judge = fit_judge(folder, tokenizer, limit=100, features=mean_colours(), config=JudgeConfig(width=4, epochs=1))
    assert tokenizer.seen == 50
    assert (
        judge.fingerprint
        != fit_judge(
            folder, Dark(), limit=90, features=mean_colours(), config=JudgeConfig(width=4, epochs=1)
        ).fingerprint
    )


def test_the_same_seed_gives_the_same_judge(judge, folder):
    state = torch.random.get_rng_state()
    again = fit_judge(folder, CoarseTokenizer(), seed=1, features=mean_colours(), config=CONFIG)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, tensor in judge.head.state_dict().items():
        assert torch.equal(again.head.state_dict()[name], tensor), name
    assert torch.equal(again.thresholds_K, judge.thresholds_K)
    assert again.fingerprint == judge.fingerprint
    other = fit_judge(
        folder, CoarseTokenizer(), seed=2, features=mean_colours(), config=JudgeConfig(width=32, epochs=1)
    )
    assert not torch.equal(other.head.mix.weight, judge.head.mix.weight)


def test_saves_and_loads(judge, tmp_path):
    path = tmp_path / "new" / "judge.safetensors"
    judge.save(path)
    loaded = Judge.load(path, mean_colours())
    images = torch.stack([torch.from_numpy(each.image).permute(2, 0, 1) for each in random_scenes(20, seed=3)])
    assert loaded.find(to_float(images)) == judge.find(to_float(images))
    assert (loaded.concepts, loaded.fingerprint) == (judge.concepts, judge.fingerprint)
    assert [entry.name for entry in path.parent.iterdir()] == ["judge.safetensors"]
    with pytest.raises(ValueError, match="was fitted on mean colours, but was given other"):
        Judge.load(path, mean_colours().__class__("other", 3, GRID, mean_colours().extract))
    (tmp_path / "text").write_text("no judge")
    for wrong in (tmp_path / "text", tmp_path / "missing"):
        with pytest.raises(ValueError, match="does not hold a readable judge"):
            Judge.load(wrong, mean_colours())


def test_a_failed_write_leaves_the_old_judge(judge, tmp_path, monkeypatch):
    path = tmp_path / "judge.safetensors"
    judge.save(path)
    before = path.read_bytes()

    def full(tensors, partial, metadata):
        partial.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("semhitok.evaluation.text_to_image.judge.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        stub().save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="does not know 'bird'"):
        stub().check_knows(["cat", "bird"])
    with pytest.raises(ValueError, match="no image has objects with boxes"):
        fit_judge(write_scenes(tmp_path / "bare", [scene([])] * 12), CoarseTokenizer(), features=mean_colours())
    few = write_scenes(tmp_path / "few", random_scenes(4))
    with pytest.raises(ValueError, match="at least 20 scenes"):
        fit_judge(few, CoarseTokenizer(), features=mean_colours())


def test_grids_of_the_network_keep_their_places(monkeypatch):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = EfficientNetLiteModel(EfficientNetLiteConfig.lite2(num_blocks=COARSE + 1)).eval()
    monkeypatch.setattr(
        "semhitok.evaluation.text_to_image.judge_features.convert_efficientnet_lite", lambda path, config: network
    )
    features = lite2_grid("weights")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = features.extract(images)
    assert found.shape == (2, features.channels, features.grid, features.grid)
    resized = F.interpolate(images, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", antialias=True)
    with torch.no_grad():
        states = network(((resized + 1) * 127.5 - 127) / 128, output_hidden_states=True).hidden_states
    fine, coarse = states[FINE + 1], states[COARSE + 1]
    row, column, side, channels = 3, 7, features.grid, fine.shape[-1]
    assert torch.allclose(found[1, 4 * channels :, row, column], coarse[1, row * side + column], rtol=1e-3, atol=1e-3)
    within = found[1, : 4 * channels, row, column].unflatten(0, (channels, 2, 2))
    for down in range(2):
        for across in range(2):
            cell = fine[1, (2 * row + down) * 2 * side + 2 * column + across]
            assert torch.allclose(within[:, down, across], cell, rtol=1e-3, atol=1e-3)
