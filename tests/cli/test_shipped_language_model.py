"""The shipped language model: small, whole when loaded, and behind both commands without an option."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from tests.cli.conftest import Run

from semhitok import SemHiTokForConditionalGeneration, SemHiTokModel
from semhitok.tokenizers.checkpoints import BUNDLED
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint

SCENE = Path(__file__).parents[2] / "examples" / "scenes" / "scene-02.jpg"


def test_it_is_small_and_holds_the_shipped_tokenizer():
    assert sum(file.stat().st_size for file in (BUNDLED / "mllm_nano").iterdir()) < 12e6
    model = SemHiTokForConditionalGeneration.from_pretrained("mllm_nano")
    assert tokenizer_fingerprint(model.image_tokenizer) == tokenizer_fingerprint(SemHiTokModel.from_pretrained("nano"))
    assert model.config.stages == ["align", "pretrain", "sft"]


def test_it_answers(run: Run):
    outcome = run("chat", SCENE, "Is there a camel in the picture?")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.strip() in ("yes", "no")
    assert run("chat", SCENE, "Is there a camel in the picture?").out == outcome.out


def test_it_draws(run: Run, tmp_path: Path):
    outcome = run("generate", "a rabbit", "--seeds", 2, "--out", tmp_path / "drawn")
    assert (outcome.code, outcome.err) == (0, "")
    pictures = sorted((tmp_path / "drawn" / "images").glob("*.png"))
    assert [Image.open(path).size for path in pictures] == [(64, 64)] * 2
    assert pictures[0].read_bytes() != pictures[1].read_bytes()
