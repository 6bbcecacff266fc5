"""Tokenizers as graphs: ONNX files and programs of torch.export against the model they come from."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.export.exported import Exported, tiny_onnx
from tests.tiny import SIZE, pixels, tiny_model
from tests.tiny_vit import tiny_vit
from transformers import Siglip2VisionConfig

from semhitok import TokenizerImageProcessor
from semhitok.cli import main
from semhitok.export.agreement import Agreement
from semhitok.export.graphs import trace
from semhitok.export.onnx_files import export_onnx
from semhitok.export.programs import export_programs
from semhitok.quantizers.layout import IdLayout
from semhitok.teachers import TeacherConfig
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint

IMAGES = pixels(5, seed=4)


@pytest.fixture(scope="module")
def exported() -> Exported:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra `onnx` is not installed")
    return tiny_onnx()


def run(path: Path, values: np.ndarray) -> np.ndarray:
    """As a program without this package would."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: values})[0]


def test_onnx_files_give_the_models_ids_and_pixels_for_any_number_of_images(exported: Exported):
    model, folder = exported.model, exported.written.folder
    for count in (1, 2, 5):
        ids = model.encode(IMAGES[:count]).ids
        found = run(folder / "encoder.onnx", IMAGES[:count].numpy())
        assert found.dtype == np.int64
        assert np.array_equal(found, ids.numpy())
    every = torch.arange(model.vocab_size).repeat(2)[: 2 * model.num_tokens].reshape(2, -1)
    np.testing.assert_allclose(run(folder / "decoder.onnx", every.numpy()), model.decode(every), atol=1e-4)


def test_matrices_are_in_int8_and_what_that_changes_is_stated(exported: Exported):
    folder, sizes = exported.written.folder, exported.written.sizes
    found = run(folder / "encoder.int8.onnx", IMAGES.numpy())
    share = float((found == exported.model.encode(IMAGES).ids.numpy()).mean())
    assert 0.5 < share <= 1
    assert sizes["decoder.int8.onnx"] < sizes["decoder.onnx"]
    assert exported.agreements["fp32"].equal_ids == 1
    assert 0.5 < exported.agreements["int8"].equal_ids <= 1
    assert exported.agreements["int8"].pixel_difference > exported.agreements["fp32"].pixel_difference
    stated = json.loads((folder / "metadata.json").read_text())["agreement"]
    assert stated == {name: agreement.as_json() for name, agreement in exported.agreements.items()}


def test_a_file_says_what_a_program_needs_to_know(exported: Exported):
    import onnx

    folder, model = exported.written.folder, exported.model
    stated = json.loads((folder / "metadata.json").read_text())
    assert stated["image_size"] == SIZE
    assert stated["ids_shape"] == [model.num_tokens]
    assert stated["vocab_size"] == model.vocab_size
    assert stated["fingerprint"] == tokenizer_fingerprint(model)
    assert stated["licence"] == "MIT"
    layout = IdLayout.of(stated["semantic_codebook_size"], stated["subcodebook_sizes"])
    ids = model.encode(IMAGES)
    assert ids.semantic_ids is not None
    assert torch.equal(layout.split(ids.ids)[0], ids.semantic_ids)
    for name in ("encoder.onnx", "decoder.int8.onnx"):
        entries = {entry.key: entry.value for entry in onnx.load(str(folder / name)).metadata_props}
        assert entries["fingerprint"] == stated["fingerprint"]
        assert json.loads(entries["image_size"]) == SIZE


def test_the_lines_of_the_page_run(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    lines = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "onnxruntime" in block)
    (tmp_path / "exported").symlink_to(exported.written.folder)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)).save(
        tmp_path / "photograph.jpg"
    )
    monkeypatch.chdir(tmp_path)
    exec(lines, found := {})
    ids = exported.model.encode(TokenizerImageProcessor(size=SIZE)("photograph.jpg")["pixel_values"]).ids
    assert np.array_equal(found["ids"], ids.numpy()), "a picture of that size is not resampled"
    decoded = (exported.model.decode(ids)[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(np.asarray(Image.open("decoded.png")) - decoded).max() < 0.51


def test_weights_that_bf16_holds_exactly_are_stored_in_bf16(exported: Exported):
    import onnx

    graph = onnx.load(str(exported.written.folder / "decoder.onnx")).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer if np.prod(tensor.dims) >= 1024}
    assert onnx.TensorProto.BFLOAT16 in kinds.values()
    assert exported.agreements["fp32"].pixel_difference < 1e-5, "nothing was rounded"


@pytest.mark.parametrize("system", ["fqgan", "wetok"])  # several codes per token: two codebooks, groups of signs
def test_programs_give_the_models_ids_and_pixels_for_any_number_of_images(tmp_path: Path, system: str):
    model = tiny_vit(system).eval()
    written, agreements = export_programs(model, tmp_path / "out", name="two", images=IMAGES)
    assert agreements["fp32"].equal_ids == 1
    encode, decode = (torch.export.load(tmp_path / "out" / f"{side}.pt2").module() for side in ("encoder", "decoder"))
    for count in (1, 3):
        ids = encode(IMAGES[:count])
        assert torch.equal(ids, model.encode(IMAGES[:count]).ids)
        torch.testing.assert_close(decode(ids), model.decode(ids), rtol=0, atol=1e-5)
    assert set(written.sizes) == {"encoder.pt2", "decoder.pt2", "metadata.json"}
    stated = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert stated["ids_shape"] == [model.num_tokens, model.codes_per_token]
    assert "semantic_codebook_size" not in stated


def test_what_cannot_be_exported_names_the_part_and_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tower = Siglip2VisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, patch_size=8, num_patches=16
    )
    model = tiny_model(teacher_config=TeacherConfig(tower, image_size=SIZE)).eval()
    with pytest.raises(
        ValueError,
        match=r"the encoder cannot be exported because of teacher\.\S* \(Siglip2Vision\w+\): it fixes the number of images",
    ):
        trace(model)
    with pytest.raises(ValueError, match="in float32"):
        trace(tiny_model().bfloat16())
    model.config.encoder = False
    with pytest.raises(ValueError, match="without its encoder side"):
        trace(model)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"holds thesis\.tex"):
        export_programs(tiny_model().eval(), tmp_path, name="tiny", images=IMAGES)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"needs onnx, onnxruntime and onnxscript .* pip install semhitok\[onnx\]"):
        export_onnx(tiny_model().eval(), tmp_path / "out", name="tiny", images=IMAGES)


def test_a_graph_that_computes_something_else_is_refused():
    Agreement(5, 0.999, 1e-5, 1e-6).check("it")
    for wrong in (Agreement(5, 0.9, 1e-5, 1e-6), Agreement(5, 1.0, 1e-3, 1e-6)):
        with pytest.raises(ValueError, match="the export was not kept"):
            wrong.check("it")


def test_options_that_contradict_the_format_are_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", "nano", str(tmp_path / "out"), "--images", str(tmp_path)]) == 2
    assert "--images belongs to --format onnx and pt2" in capsys.readouterr().err
    assert main(["export", "nano", str(tmp_path / "out"), "--format", "onnx", "--figures", "report.json"]) == 2
    assert "--format onnx does not write" in capsys.readouterr().err
