"""``semhitok export``: mixed precision on disk, fp32 in memory, the same semantic ids, a card that says what it is."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import SIZE, pixels, tiny_model

from semhitok import SemHiTokModel, TokenizerImageProcessor
from semhitok.export.tokenizer import export_tokenizer
from semhitok.inference.loading import newest_model
from semhitok.storage.atomic import WriteError
from semhitok.tokenizers.semhitok import modeling

STAGES = ["semantic", "pixel"]
PROVENANCE = {
    "semantic": {"recipe": "nano", "data": "train", "date": "2026-01-02", "steps": 3000, "samples": 384_000},
    "pixel": {"recipe": "nano", "data": "train", "date": "2026-01-03", "steps": 9000, "samples": 144_000},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    tiny_model(stages=STAGES, provenance=PROVENANCE).save_pretrained(folder / "pixel" / "model")
    return folder


@pytest.fixture
def exported(run, trained, tmp_path):
    outcome = run("export", trained, tmp_path / "out", "--license", "Apache-2.0")
    assert outcome.code == 0
    return tmp_path / "out", outcome


def test_only_the_pixel_branch_is_rounded(exported, trained):
    folder, _ = exported
    before = load_file(trained / "pixel" / "model" / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        rounded = name.startswith(("pixel_encoder.", "pixel_decoder."))
        assert after[name].dtype == (torch.bfloat16 if rounded else torch.float32)
        assert torch.equal(after[name], tensor.to(after[name].dtype))


def test_it_loads_strictly_in_float32_with_the_same_semantic_ids(exported, trained):
    folder, _ = exported
    model, info = SemHiTokModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    original = SemHiTokModel.from_pretrained(trained / "pixel" / "model").eval()
    images = pixels(16, seed=3)
    ours, theirs = model.eval().encode(images), original.encode(images)
    assert torch.equal(ours.semantic_ids, theirs.semantic_ids)
    assert torch.equal(model.teacher_features(images), original.teacher_features(images))
    assert torch.allclose(model.decode(theirs.ids), original.decode(theirs.ids), atol=0.05)
    assert TokenizerImageProcessor.from_pretrained(folder).size == SIZE
    decoder = SemHiTokModel.from_pretrained(folder, encoder=False).eval()
    assert torch.equal(decoder.decode(theirs.ids), model.decode(theirs.ids))


def test_configuration_and_sizes(exported):
    folder, outcome = exported
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert config["stages"] == STAGES
    assert config["provenance"] == PROVENANCE | {
        "licence": "Apache-2.0",
        "stored": "pixel encoder and decoder in bfloat16",
    }
    total = sum(file.stat().st_size for file in folder.iterdir())
    assert f"{total / 2**20:.2f} MB in all" in outcome.out
    assert total < sum(file.stat().st_size for file in newest_model(folder).iterdir()) + 1


def test_card(run, trained, checkpoint, pictures, tmp_path):
    sources = {
        "clips (public domain)": {"pictures": 7, "authors": ["Ada <ada@example.org>", "Bob"]},
        "walls (CC-BY-SA-4.0)": {"pictures": 2, "authors": []},
    }
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "dataset.json").write_text(json.dumps({"sources": sources}))
    evaluated = ["evaluate", checkpoint, f"photographs={pictures}", "--before", checkpoint, "--out", tmp_path / "e"]
    assert run(*evaluated, "--no-frechet", "--no-perceptual").code == 0
    arguments = ["--figures", tmp_path / "e" / "report.json", "--data", tmp_path / "scenes", "--name", "my-tokens"]
    outcome = run("export", trained, tmp_path / "out", "--license", "Apache-2.0", *arguments)
    assert outcome.code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "# my-tokens" in card
    assert "| pixel | nano | train | 9,000 | 144,000 | none | 2026-01-03 |" in card
    assert "| clips | public domain | 7 |" in card
    assert "* clips: Ada, Bob." in card
    assert "example.org" not in card
    report = json.loads((tmp_path / "e" / "report.json").read_text())
    assert f"| photographs | 9 | {report['groups']['photographs']['reconstruction']['psnr']:.2f} |" in card
    assert "are bit-identical to those before the pixel stages" in card
    assert "## Limits" in card
    assert "12 bytes" in card  # 16 tokens of 6 bits
    provenance = json.loads((tmp_path / "out" / "config.json").read_text())["provenance"]
    assert provenance["sources"] == ["clips (public domain)", "walls (CC-BY-SA-4.0)"]


def test_an_earlier_export_is_replaced_and_nothing_else(run, exported, trained, tmp_path):
    folder, _ = exported
    assert run("export", trained, folder).code == 0
    assert "licence" not in json.loads((folder / "config.json").read_text())["provenance"]
    (folder / "thesis.tex").write_text("years of work")
    outcome = run("export", trained, folder)
    assert outcome.code == 1
    assert "holds thesis.tex" in outcome.err
    assert (folder / "thesis.tex").exists()


def test_all_weights_are_compared_with_their_bfloat16_once(run, trained, tmp_path, monkeypatch):
    compared, is_rounded = [], modeling.is_rounded
    monkeypatch.setattr(modeling, "is_rounded", lambda model: compared.append(model) or is_rounded(model))
    assert run("export", trained, tmp_path / "out").code == 0
    assert len(compared) == 1
    stored = json.loads((tmp_path / "out" / "config.json").read_text())["provenance"]["stored"]
    assert stored.replace(" in ", " as ") in (tmp_path / "out" / "README.md").read_text()


def test_the_earlier_export_survives_a_full_disk(exported, trained, monkeypatch):
    folder, _ = exported
    before = (folder / "model.safetensors").read_bytes()
    model = SemHiTokModel.from_pretrained(trained / "pixel" / "model")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("semhitok.export.checkpoint.save_file", full)
    with pytest.raises(WriteError, match="the disk is full"):
        export_tokenizer(model, folder, card="", provenance={})
    assert (folder / "model.safetensors").read_bytes() == before
    assert model.config.provenance == PROVENANCE


def test_files_of_another_kind(run, trained, tmp_path):
    for option in ("--figures", "--data"):
        for content in ("{", "[]", '{"other": 1}'):
            (tmp_path / "f.json").write_text(content)
            outcome = run("export", trained, tmp_path / "out", option, tmp_path / "f.json")
            assert outcome.code == 1
            assert f"{tmp_path / 'f.json'} is not a " in outcome.err
    (tmp_path / "f.json").write_text('{"groups": {"a": {}}}')
    outcome = run("export", trained, tmp_path / "out", "--figures", tmp_path / "f.json")
    assert outcome.code == 1
    assert "not those of a report" in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_model_that_only_decodes_is_not_exported(tmp_path):
    with pytest.raises(ValueError, match="without its encoder side"):
        export_tokenizer(tiny_model(encoder=False), tmp_path / "out", card="", provenance={})
    with pytest.raises(ValueError, match="must be in float32"):
        export_tokenizer(tiny_model().bfloat16(), tmp_path / "out", card="", provenance={})


def test_runs_without_a_finished_stage(run, tmp_path, checkpoint):
    shutil.copytree(checkpoint, tmp_path / "run" / "semantic" / "model")  # interrupted: its configuration has no stage
    assert newest_model(tmp_path / "run") is None
    outcome = run("export", tmp_path / "run", tmp_path / "out")
    assert outcome.code == 1
    assert str(tmp_path / "run") in outcome.err
