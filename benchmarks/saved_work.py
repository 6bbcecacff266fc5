"""What training no longer computes, gathers or launches: each figure before and after.

    python -m benchmarks.saved_work [--timed]

Counted, not measured, so that it does not depend on the machine: FLOPs and bytes on shapes alone, operations as PyTorch dispatches them. Only
``--timed`` measures: attention of packed rows on this processor, both ways in turn.

Shapes: B rows of R positions, C codebooks of K codes, N vectors, D channels.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from benchmarks.measuring import interleaved
from tests.mllm.tiny_mllm import image_tokenizer, mllm
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModel, Qwen2Config, SiglipVisionConfig

from semhitok.data.packing import pack
from semhitok.losses.large_head import CPU_CHUNK, chunk_tokens_for
from semhitok.mllm.packed_attention import PackedSequences, by_sequence
from semhitok.quantizers.lookup import nearest_cosine, smallest_in_batches
from semhitok.recipes import RECIPES
from semhitok.runs.planning.trace import count_flops, peak_bytes, shapes_only, without_weights
from semhitok.teachers import Teacher, TeacherConfig
from semhitok.tokenizers import SemHiTokModel
from semhitok.tokenizers.image_processing import TokenizerImageProcessor
from semhitok.training.codebook_maintenance import CodebookMaintainer
from semhitok.training.compilation import compile_blocks, repeated_blocks
from semhitok.training.state import TrainState
from semhitok.training.tasks.pixel import PixelTask
from semhitok.training.tasks.pixel_config import PixelConfig

Figures = tuple[str, float, float, str]
EXAMPLES = Path(__file__).parents[1] / "examples"
SIGLIP_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}


class Operations(TorchDispatchMode):
    """Counts the operations that a device would be given; views are none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def teacher() -> list[Figures]:
    """The last layer but one of SigLIP-large at 256 px, for 32 images."""

    def cost(whole: bool) -> tuple[float, float]:
        config = SiglipVisionConfig(**SIGLIP_LARGE, image_size=256, patch_size=16, attn_implementation="sdpa")
        with shapes_only():
            made = without_weights(lambda: Teacher(TeacherConfig(config, image_size=256)))
            images, tensors = torch.zeros(32, 3, 256, 256), [*made.parameters(), *made.buffers()]
            found = (lambda *given: None) if whole else None
            with patch("semhitok.teachers.tower.find_layers", found) if found else patch.dict({}):
                return count_flops(lambda: made(images)) / 32, peak_bytes(lambda: made(images), [*tensors, images])

    before, after = cost(True), cost(False)
    return [
        ("teacher, one image", before[0] / 1e9, after[0] / 1e9, "GFLOP"),
        ("teacher, 32 images, memory beside the weights", before[1] / 2**20, after[1] / 2**20, "MiB"),
    ]


def teacher_in_bf16() -> list[Figures]:
    """Semantic ids of the example images that change in ``nano``, and the L1 of the reconstructions with them."""
    model = SemHiTokModel.from_pretrained("nano").eval()
    files = sorted(file for name in ("photographs", "scenes") for file in (EXAMPLES / name).glob("*.jpg"))
    images = TokenizerImageProcessor(size=model.config.image_size)(files)["pixel_values"]
    ids, errors = [], []
    for precision in ("fp32", "bf16"):
        config = PixelConfig(perceptual_weight=0.0, adversarial_weight=0.0, teacher_precision=precision)
        with torch.no_grad():
            ids.append(PixelTask(model, config)._semantic_ids(images))
            errors.append(float((model(images, ids[-1]).reconstruction - images).abs().mean()))
    changed = 100 * float((ids[0] != ids[1]).float().mean())
    count = f"{len(images)} images"
    return [
        (f"semantic ids changed by a teacher in bf16, {count}", 0.0, changed, "%"),
        (f"L1 with these ids, {count}", 1e3 * errors[0], 1e3 * errors[1], "thousandths"),
    ]


def replacements() -> list[Figures]:
    """Vectors gathered from all ranks over an interval of the paper's recipe, batch 256 of 256 tokens on one rank's behalf."""
    recipe, found = RECIPES["semhitok_256"](), []
    for name, config, width in (("semantic", recipe.semantic.task, 48), ("pixel", recipe.pixel.task, 16)):
        maintainer = CodebookMaintainer(None, config, torch.device("cpu"), seed_name=name)
        seen = [(torch.empty(256, 256, width, device="meta"), torch.empty(0))]
        states = (TrainState(total_steps=10**6, step=step) for step in range(config.revive_every))
        kept = sum(maintainer._is_kept(seen, state) for state in states)
        size = 256 * 256 * width * 4 / 2**20
        what = f"vectors gathered in {config.revive_every} steps, {name} codebook"
        found.append((what, config.revive_every * size, kept * size, "MiB"))
    return found


def head() -> list[Figures]:
    """Operations per byte of the head's weight and its gradient, of Qwen2's ids and the joint codebook."""
    chunk = chunk_tokens_for("cuda", 348_672)
    return [(f"head, {CPU_CHUNK} and {chunk} tokens at a time", CPU_CHUNK / 2, chunk / 2, "FLOP per byte")]


def codes() -> list[Figures]:
    """Operations of the lookup of one image of UniTok: 8 codebooks of 4,096 codes, 256 tokens."""
    z_CND, codes_CKD = torch.randn(8, 256, 8), torch.nn.functional.normalize(torch.randn(8, 4096, 8), dim=-1)
    ids, counts = [], []
    bias_CK = torch.zeros(8, 4096)
    for look_up in (
        lambda: torch.stack(
            [
                smallest_in_batches(*(part[None] for part in each), -1.0)[0]
                for each in zip(z_CND, codes_CKD, bias_CK, strict=True)
            ]
        ),
        lambda: smallest_in_batches(z_CND, codes_CKD, bias_CK, -1.0),
    ):
        with Operations() as operations:
            ids.append(look_up())
        counts.append(operations.count)
    assert torch.equal(*ids)
    assert torch.equal(ids[0], torch.stack([nearest_cosine(*each) for each in zip(z_CND, codes_CKD, strict=True)]))
    return [("lookup of 8 codes on a GPU", *map(float, counts), "operations")]


def generation() -> list[Figures]:
    """Graphs compiled while a model with two compiled layers generates images and text; and those of ``CompiledSteps``."""
    found = []
    for compile_layers in (_every_call, compile_blocks):
        torch._dynamo.reset()
        graphs: list[Any] = []
        model = mllm(tokenizer=image_tokenizer()).eval()
        compile_layers(
            model.language_model, backend=lambda graph, _, graphs=graphs: graphs.append(graph) or graph.forward
        )
        model.generate_images(torch.tensor([[5, 6, 7]]))
        model.generate(torch.tensor([[5, 6, 7, 8]]), max_new_tokens=4, do_sample=False)
        found.append(float(len(graphs)))
    return [("graphs compiled by generation after --compile, 2 layers", found[0], found[1], "graphs")]


def _every_call(model: Any, *, backend: Any) -> None:
    for block in repeated_blocks(model):
        block.compile(backend=backend)


def packed_rows(rows: int, length: int) -> torch.Tensor:
    """Positions (B,R) of rows packed with sequences of an image and 10 to 200 words."""
    lengths = (266 + torch.randint(10, 200, (20 * rows,), generator=torch.Generator().manual_seed(0))).tolist()
    found = torch.zeros(rows, length, dtype=torch.int64)
    for row, packed in enumerate(pack(lengths, length, rows)):
        begin = 0
        for count in [*(lengths[each] for each in packed), length - sum(lengths[each] for each in packed)]:
            found[row, begin : begin + count] = torch.arange(count)
            begin += count
    return found


def attention() -> list[Figures]:
    """Pairs of positions for which a head multiplies queries and keys, padding included."""
    positions = packed_rows(4, 2048)
    pairs = sum(places.shape[0] * places.shape[1] ** 2 for places in PackedSequences.of(positions).groups)
    before = positions.shape[0] * positions.shape[1] ** 2
    return [("attention of 4 rows of 2,048, each head", before / 1e6, pairs / 1e6, "million pairs of positions")]


def timed_attention() -> list[Figures]:
    """Two small layers on this processor, forward and backward, both ways in turn."""
    sizes: dict[str, Any] = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = Qwen2Config(**sizes, intermediate_size=32, num_hidden_layers=2, vocab_size=8, attn_implementation="sdpa")
    model, positions = AutoModel.from_config(config), packed_rows(2, 2048)
    embeds = torch.randn(*positions.shape, config.hidden_size)

    def masked() -> None:
        model(inputs_embeds=embeds, position_ids=positions, use_cache=False).last_hidden_state.sum().backward()

    def apart() -> None:
        with by_sequence(model):
            options = {"position_ids": positions, "packed_sequences": PackedSequences.of(positions)}
            model(inputs_embeds=embeds, use_cache=False, **options).last_hidden_state.sum().backward()

    times = interleaved({"masked": masked, "apart": apart}, rounds=3)
    seconds = (min(each.cpu) * 1e3 for each in times.values())
    return [("2 layers, 2 rows of 2,048, forward and backward", *seconds, "ms of processor time")]


def main() -> None:
    """Print the table."""
    parts = [replacements, head, codes, attention, teacher, teacher_in_bf16, generation]
    parts += [timed_attention] if "--timed" in sys.argv else []
    print("| | before | now | |\n|---|---|---|---|")
    for what, before, after, unit in itertools.chain.from_iterable(part() for part in parts):
        print(f"| {what} | {before:,.1f} | {after:,.1f} | {unit} |", flush=True)


if __name__ == "__main__":
    main()
