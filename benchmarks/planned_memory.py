"""Does the planner's memory match that of a real step? A language model sharded among two processes, every byte counted.

    python -m benchmarks.planned_memory [--layers 6] [--width 256] [--rows 4]

The bytes of all tensors that exist on a rank are counted at every operation of a training step (weights, gathered weights,
gradients, optimizer states, activations, logits, buffers of the collectives); their peak is compared with the plan. Memory that
the process itself or the allocator takes is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from benchmarks.ranks import run_ranks
from tests.data.records_on_disk import write_scenes
from tests.mllm.tiny_mllm import image_tokenizer, processor
from tests.tiny import optimizer
from tests.training.tasks.language_feed import ROW, feed
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AutoModelForCausalLM, Qwen2Config

from semhitok import distributed
from semhitok.losses.large_head import CPU_CHUNK
from semhitok.mllm import SemHiTokForConditionalGeneration
from semhitok.runs.planning.language import LanguageCosts
from semhitok.training.state import TrainState
from semhitok.training.tasks.language import LanguageTask
from semhitok.training.tasks.language_config import LanguageConfig

WORLD, STEPS = 2, 2


class ShardedBytes(TorchDispatchMode):
    """As the planner's ``AllocatedBytes``, for tensors that FSDP frees and allocates in place."""

    def __init__(self, existing: Sequence[Tensor]) -> None:
        super().__init__()
        self._storages = WeakIdKeyDictionary()
        for tensor in existing:
            self._add(tensor)
        self.peak = self.now()

    def now(self) -> int:
        return sum(storage.nbytes() for storage in list(self._storages.keys()))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(each, DTensor) for each in types):
            return NotImplemented  # seen again as operations on local tensors
        found = func(*args, **(kwargs or {}))
        for each in tree_leaves((args, kwargs, found)):
            if isinstance(each, Tensor):
                self._add(each)
        self.peak = max(self.peak, self.now())
        return found

    def _add(self, tensor: Tensor) -> None:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        self._storages[local.untyped_storage()] = True


def model_of(options: argparse.Namespace) -> SemHiTokForConditionalGeneration:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=options.vocabulary,
        hidden_size=options.width,
        intermediate_size=4 * options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=ROW,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    language_model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return SemHiTokForConditionalGeneration.from_language_model(language_model, image_tokenizer())


def measure(options: argparse.Namespace, scenes: Path, recompute: bool, precision: Any) -> dict[str, float]:
    """The peak of the second step on this rank, and the plan."""
    model = model_of(options)
    config = LanguageConfig(
        optimizer=optimizer(), precision=precision, checkpoint_activations=recompute, chunk_tokens=CPU_CHUNK
    )
    costs = LanguageCosts(type(model.config).from_dict(model.config.to_dict()), config, ROW)
    planned = costs.memory(options.rows, WORLD, recompute=recompute)
    mesh = distributed.shard_mesh("full", torch.device("cpu"))
    task = LanguageTask(model, config, processor=processor(model), mesh=mesh)
    state = TrainState(total_steps=10)
    batches = feed(model, scenes).batches(0, options.rows * WORLD, distributed.rank(), WORLD)
    task.step([next(batches)], state)
    moments = [each for values in task.optimizer.state.values() for each in values.values()]
    batch = next(batches)
    mode = ShardedBytes([*model.parameters(), *model.buffers(), *moments])
    with mode:
        task.step([batch], state)
    return {
        "measured": mode.peak,
        "planned": planned.total,
        **{f"{name} (plan)": size for name, size in vars(planned).items()},
    }


def work(rank: int, folder: Path, options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    image_tokenizer()
    os.environ["LOCAL_WORLD_SIZE"] = str(WORLD)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=WORLD)
    found = {}
    for precision in ("fp32", "bf16"):
        for recompute in (False, True):
            name = f"{precision}{', recomputed' if recompute else ''}"
            found[name] = measure(options, folder / "scenes", recompute, precision)
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found))
    distributed.destroy_distributed()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; exit code 1 if a plan is off by more than a tenth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 6), ("width", 256), ("rows", 4), ("vocabulary", 4000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scenes(folder / "scenes", 24)
        if not run_ranks(work, [(rank, folder, options) for rank in range(WORLD)]):
            return 1
        found = json.loads((folder / "found.json").read_text())
    worst = 0.0
    print("| setting | measured | planned | planned / measured |\n|---|---|---|---|")
    for setting, values in found.items():
        ratio = values["planned"] / values["measured"]
        worst = max(worst, abs(ratio - 1))
        print(
            f"| {setting} | {values['measured'] / 2**20:.1f} MiB | {values['planned'] / 2**20:.1f} MiB | {ratio:.3f} |"
        )
        print("   " + ", ".join(f"{part} {size / 2**20:.1f}" for part, size in values.items() if "(plan)" in part))
    return int(worst > 0.1)


if __name__ == "__main__":
    raise SystemExit(main())
