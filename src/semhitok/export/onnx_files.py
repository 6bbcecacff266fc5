"""A tokenizer as ONNX files: encoder and decoder, in fp32 and with matrices in int8, compared with the model.

``encoder.onnx`` takes ``pixel_values`` (batch,3,S,S) in [-1,1] and gives ``ids``, int64; ``decoder.onnx`` is the way back.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from semhitok.export.agreement import Agreement, Run, compare
from semhitok.export.checkpoint import ExportedCheckpoint, check_folder
from semhitok.export.graphs import INPUTS, OUTPUTS, SIDES, as_texts, graph_metadata, quietly, trace
from semhitok.storage.atomic import atomic_directory, write_text
from semhitok.storage.configuration import one_line
from semhitok.tokenizers.protocol import Tokenizer

METADATA = "metadata.json"
QUANTIZED = {side: f"{side}.int8.onnx" for side in SIDES}
FILES = frozenset({METADATA, *(f"{side}.onnx" for side in SIDES), *QUANTIZED.values()})
OPSET = 20  # of the ONNX operators, the highest that onnxruntime-web reads without a warning
SMALLEST_HALVED = 1024  # elements of a tensor that is worth a node of its own


def export_onnx(
    model: Tokenizer, folder: Path, *, name: str, images: Tensor, licence: str | None = None
) -> tuple[ExportedCheckpoint, dict[str, Agreement]]:
    """Write both graphs in both precisions, with a ``metadata.json``; an earlier export is replaced if they agree.

    Weights that bf16 holds exactly, as those of a shared checkpoint are, are stored in bf16 and computed with in fp32.

    Args:
        model: in fp32 on the CPU, with its encoder side.
        folder: folder to write; may hold an earlier export, and nothing else.
        name: name of the model in the metadata.
        images: (B,3,S,S) in [-1,1], with which the files are compared with the model.
        licence: SPDX name of the licence of the weights; by default the model's own.

    Returns:
        What was written, and the agreement of ``fp32`` and ``int8`` with the model.

    Raises:
        ValueError: a package is missing, the folder holds other things, a part of the model cannot be exported, or the fp32
            files do not compute what the model computes.
        WriteError: the disk is full; an earlier export is untouched.
    """
    _require_packages()
    check_folder(folder, FILES)
    metadata = graph_metadata(model, name, licence)
    programs = trace(model)
    with atomic_directory(folder) as unfinished, quietly():
        for side, program in programs.items():
            _write(side, program, unfinished, as_texts(metadata))
        agreements = {}
        for precision, suffix in (("fp32", ""), ("int8", ".int8")):
            encode, decode = (session(unfinished / f"{side}{suffix}.onnx") for side in SIDES)
            agreements[precision] = compare(model, encode, decode, images)
        agreements["fp32"].check("the exported graph in onnxruntime")
        stated = metadata | {"agreement": {precision: found.as_json() for precision, found in agreements.items()}}
        write_text(unfinished / METADATA, json.dumps(stated, indent=1) + "\n")
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    return ExportedCheckpoint(folder, sizes), agreements


def session(path: Path) -> Run:
    """The graph in a file, on the CPU, with as many threads as torch has: an array to an array."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    loaded = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (taken,) = loaded.get_inputs()

    def run(values: np.ndarray) -> np.ndarray:
        return np.asarray(loaded.run(None, {taken.name: values})[0])

    return run


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"export to ONNX needs onnx, onnxruntime and onnxscript ({error}): pip install semhitok[onnx]"
        ) from error


def _write(side: str, program: ExportedProgram, folder: Path, texts: dict[str, str]) -> None:
    """Both precisions of one graph."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    try:
        converted: Any = torch.onnx.export(
            program,
            input_names=[INPUTS[side]],
            output_names=[OUTPUTS[side]],
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    except Exception as error:
        raise ValueError(
            f"the {side} cannot be exported to ONNX: {one_line(error.__cause__ or error)}; its torch.export program can be, "
            "with --format pt2"
        ) from error
    graph = _with_batch(converted.model_proto)
    with tempfile.TemporaryDirectory() as scratch:
        plain, small = Path(scratch) / "plain.onnx", Path(scratch) / "small.onnx"
        onnx.save(graph, str(plain))
        quantize_dynamic(plain, small, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, per_channel=True)
        for found, file in ((graph, f"{side}.onnx"), (onnx.load(str(small)), QUANTIZED[side])):
            onnx.helper.set_model_props(found, texts)
            onnx.save(_halved(found), str(folder / file))


def _with_batch(model: Any) -> Any:
    """The graph with ``batch`` as the name of its first axis, and without the shapes of what is between its ends."""
    del model.graph.value_info[:]
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def _halved(model: Any) -> Any:
    """The graph with bf16 weights and a cast to fp32 wherever that loses nothing."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims, initial=1) < SMALLEST_HALVED:
            continue
        bits = np.ascontiguousarray(numpy_helper.to_array(tensor)).view(np.uint32)
        if not (bits & 0xFFFF).any():  # a bf16 number is the upper half of an fp32 number
            half = helper.make_tensor(
                f"{tensor.name}.bf16",
                TensorProto.BFLOAT16,
                tensor.dims,
                (bits >> 16).astype(np.uint16).tobytes(),
                raw=True,
            )
            casts.append(helper.make_node("Cast", [half.name], [tensor.name], to=TensorProto.FLOAT))
            tensor.CopyFrom(half)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model
