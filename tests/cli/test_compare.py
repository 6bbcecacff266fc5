"""``semhitok compare``: checkpoints side by side, and systems with a quantizer of one's own in training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from tests.tiny import save_images, tiny_model
from tests.tiny_vit import BACKBONE, tiny_vit

from semhitok.experiments import experiment
from semhitok.quantizers import OWN_QUANTIZERS, VIT_QUANTIZERS
from semhitok.recipes import vit
from semhitok.training.loop_config import LoopConfig

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_quantizer.py"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = save_images(tmp_path / "images", 24)
    for index, path in enumerate(sorted(folder.glob("*.png"))):
        scene = {"objects": [{"box": [0, 0, 9, 9], "category": f"kind {index % 2}", "concept": f"c{index % 8}"}]}
        path.with_suffix(".json").write_text(json.dumps(scene))
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The common size and budget, shrunk; no weights of metrics; own quantizers are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vit, "BACKBONE", vit.BACKBONE | BACKBONE)
    monkeypatch.setattr(vit, "comparison_loop", lambda **_: LoopConfig(steps=8, batch_size=8))
    monkeypatch.setattr(experiment, "build_metrics", lambda device: (None, []))
    for table in (OWN_QUANTIZERS, VIT_QUANTIZERS):
        for name in ("own-directions", "sde"):
            monkeypatch.setitem(table, name, None)
            del table[name]


def test_checkpoints_side_by_side(run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEMHITOK_CACHE", str(tmp_path / "cache"))
    tiny_model().save_pretrained(tmp_path / "a")
    tiny_vit("rqvae").save_pretrained(tmp_path / "b")
    done = run(
        "compare", str(tmp_path / "a"), str(tmp_path / "b"), "--images", str(images), "--out", str(tmp_path / "out")
    )
    assert (done.code, done.err) == (0, "")
    assert "| 4 x 8 | 16 | 192 |" in done.out
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [entry["bits"] for entry in found.values()] == [96, 192]
    assert all(entry["cost"]["encode_per_second"] > 0 for entry in found.values())
    alone = run(
        "evaluate",
        str(tmp_path / "b"),
        str(images),
        "--no-frechet",
        "--no-perceptual",
        "--out",
        str(tmp_path / "alone"),
    )
    assert alone.code == 0
    (group,) = json.loads((tmp_path / "alone" / "report.json").read_text())["groups"].values()
    assert found[str(tmp_path / "b")]["groups"]["images"]["reconstruction"]["psnr"] == group["reconstruction"]["psnr"]
    with Image.open(tmp_path / "out" / "comparison.png") as picture:
        assert picture.height > 3 * 128


def test_a_quantizer_of_ones_own_is_trained_beside_a_known_one_and_results_are_kept(run, small: None, images: Path):
    command = ["compare", "--quantizer", str(EXAMPLE), "--train", "fsq", "own-directions", "--test-images", "12"]
    command += ["--data", str(images), "--test", str(images), "--results", "results", "--out", "out", "--seeds", "0"]
    done = run(*command)
    assert (done.code, done.err) == (0, "")
    assert "own_quantizer.py registers own-directions" in done.out
    files = {path.name: json.loads(path.read_text()) for path in Path("results").glob("*.json")}
    assert set(files) == {"compared-fsq-seed0.json", "compared-own-directions-seed0.json"}
    own = files["compared-own-directions-seed0.json"]
    assert own["metrics"]["bits"] == 16 * 12
    assert own["settings"]["reconstruction"]["task"]["quantizer_weights"] == {"commitment": 0.25}
    assert Path("results/pareto.png").exists()
    assert "| own-directions | none |" in Path("results/comparison.md").read_text()

    again = run(*command)
    assert "comparison: 2 of 2 runs are finished" in again.out
    table = run("compare", "--train", "fsq", "--results", "results", "--seeds", "0")
    assert table.code == 0
    assert "| fsq | none | 1 | 4,096 |" in table.out

    # With other settings, the finished run is neither used nor overwritten.
    before = Path("results/compared-fsq-seed0.json").read_bytes()
    vit.BACKBONE["decoder_layers"] = 2
    changed = run(*command)
    assert changed.code == 1
    assert "was made with other settings (model.decoder_layers 1 -> 2); move it away to run it again" in changed.err
    assert Path("results/compared-fsq-seed0.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["--train", "vqgann"],
            2,
            "unknown system 'vqgann': choose sets or systems from reconstruction, unified, all,",
        ),
        ([], 2, "pass checkpoints and --images to compare them as they are, or --train"),
        (["a", "--train", "fsq"], 2, "--train trains systems from random weights: leave out a"),
        (["--images", "images"], 2, "--images needs checkpoints to measure: name at least one"),
        (["nano", "nano", "--images", "images"], 2, "a checkpoint is named twice: name each one once"),
        (["nano", "--images", "empty"], 1, "empty: holds no image files"),
        (["nowhere", "--images", "images"], 1, "no checkpoint at nowhere"),
        (
            ["nano", "small", "--images", "images"],
            1,
            "nano takes images of 64 px and small of 32 px: their figures cannot",
        ),
        (
            ["--train", "fsq", "--data", "images"],
            2,
            "pass both --data and --test to train, or neither to print the table",
        ),
        (
            ["--train", "fsq", "--measure", "words"],
            2,
            "unknown measurement 'words': choose from answers, drawing, drawing-",
        ),
        (
            ["--train", "fsq", "--language-data", "images"],
            2,
            "pass both --language-data and --language-test, or neither",
        ),
        (
            ["--train", "fsq", "--language-data", "images", "--language-test", "images"],
            2,
            "--language-data measures trained systems: pass their --data and --test, too",
        ),
        (["--train", "fsq", "--data", "empty", "--test", "images"], 1, "empty: holds no image files"),
        (["--train", "fsq", "--quantizer", "none.py"], 1, "no such file: none.py"),
        (
            ["--train", "fsq", "--quantizer", "silent.py"],
            1,
            "silent.py registers no quantizer: it must call register_quantizer",
        ),
        (
            ["--train", "fsq", "--quantizer", "broken.py"],
            1,
            "broken.py failed with ZeroDivisionError: division by zero",
        ),
        (["--train", "fsq", "--quantizer", "sde.py"], 2, "a quantizer of yours is called 'sde' like a set or a system"),
        (
            ["--train", "fsq", "--quantizer", "taken.py"],
            1,
            "there is already a quantizer called 'fsq': give yours another name",
        ),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_sentence(
    run, small: None, images: Path, tmp_path: Path, arguments: list[str], code: int, message: str
):
    (tmp_path / "empty").mkdir()
    if "small" in arguments:
        tiny_vit("vqgan").save_pretrained(tmp_path / "small")
    Path("silent.py").write_text("x = 1\n")
    Path("broken.py").write_text("1 / 0\n")
    Path("sde.py").write_text("from semhitok.quantizers import register_quantizer\nregister_quantizer('sde', None)\n")
    Path("taken.py").write_text("from semhitok.quantizers import register_quantizer\nregister_quantizer('fsq', None)\n")
    done = run("compare", *arguments)
    assert done.code == code
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
