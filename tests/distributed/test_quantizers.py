"""Two gloo ranks, each with half of a batch, end with the bits of one process that has all of it."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from semhitok.distributed import all_reduce_sum, gather_in_sample_order
from semhitok.quantizers import (
    CodeUsage,
    EMAQuantizer,
    HierarchicalQuantizer,
    MultiCodebookQuantizer,
    NormalizedQuantizer,
    ResidualQuantizer,
    VanillaQuantizer,
    underused_subcodebooks,
)

BATCH, TOKENS, DIM, CODES, SUBCODES = 8, 12, 6, 20, 3


def exercise(rank: int, world: int) -> dict[str, Tensor]:
    """Every collective of the package on this rank's slice of fixed data; the resulting state."""
    generator = torch.Generator().manual_seed(0)
    part = slice(rank * BATCH // world, (rank + 1) * BATCH // world)

    def local_batch() -> Tensor:
        return torch.randn(BATCH, TOKENS, DIM, generator=generator)[part]

    torch.manual_seed(100)
    state: dict[str, Tensor] = {}
    for rule in ("sum_count", "batch_mean"):
        ema = EMAQuantizer(CODES, DIM, update_rule=rule, decay=0.9)
        ema.initialise(local_batch().flatten(0, 1), seed=1, iterations=3)
        usage = CodeUsage(CODES)
        for step in range(6):
            z_BND = local_batch()
            ids_BN = ema(z_BND).ids
            usage.update(ids_BN)
            ema.update(ema.assignments(z_BND, ids_BN))
            state[f"{rule}.revived.{step}"] = torch.tensor(
                ema.replace_dead_codes(ema.counts_K < 4.0, z_BND.flatten(0, 1), seed=2, step=step)
            )
        state[f"{rule}.usage"] = usage.all_reduce().counts
        state |= {f"{rule}.{name}": tensor for name, tensor in ema.state_dict().items()}
    for name, quantizer in (("vanilla", VanillaQuantizer(CODES, DIM)), ("normalized", NormalizedQuantizer(CODES, DIM))):
        quantizer.initialise(local_batch().flatten(0, 1), seed=1, iterations=3)
        quantizer.replace_dead_codes(torch.arange(CODES) % 3 == 0, local_batch().flatten(0, 1), seed=2, step=7)
        state[name] = quantizer.codebook_KD.detach()
    unhit_CK = (torch.arange(2 * CODES).reshape(2, CODES) % 3 == 0) | (torch.arange(CODES) == 1)
    several = {"multi_codebook": MultiCodebookQuantizer(2, CODES, DIM), "residual": ResidualQuantizer(2, CODES, DIM)}
    for name, quantizer in several.items():
        quantizer.initialise(local_batch().flatten(0, 1), seed=1, iterations=3)
        dead = quantizer.dead_codes((~unhit_CK).long(), 0.5)
        state[f"{name}.revived"] = torch.tensor(
            quantizer.replace_dead_codes(dead, local_batch().flatten(0, 1), seed=2, step=7)
        )
        state |= {f"{name}.{key}": tensor for key, tensor in quantizer.state_dict().items()}
    hierarchical = HierarchicalQuantizer(CODES, SUBCODES, DIM)
    semantic_ids_BN = torch.randint(0, CODES - 1, (BATCH, TOKENS), generator=generator)[part]
    z_ND, semantic_ids_N = local_batch().flatten(0, 1), semantic_ids_BN.flatten()
    hierarchical.initialise(z_ND, semantic_ids_N, seed=1, iterations=3)
    usage = CodeUsage(CODES * SUBCODES)
    usage.update(hierarchical.flatten_ids(semantic_ids_BN, hierarchical(local_batch(), semantic_ids_BN).ids))
    counts_Km = usage.all_reduce().counts.view(CODES, SUBCODES)
    revived = hierarchical.replace_dead_codes(
        hierarchical.dead_codes(counts_Km, counts_Km.numel() / int(counts_Km.sum())),
        z_ND,
        semantic_ids_N,
        seed=3,
        step=5,
    )
    state["hierarchical"] = hierarchical.codebook_KmD.detach()
    state["hierarchical.revived"] = torch.tensor([revived, underused_subcodebooks(counts_Km)])
    state["summed"] = torch.bincount(semantic_ids_N, minlength=CODES)
    all_reduce_sum(state["summed"])
    state["gathered"] = gather_in_sample_order(semantic_ids_BN.T.contiguous().T)
    return state


def worker(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    torch.save(exercise(rank, world), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    world = 2
    mp.spawn(worker, (world, str(tmp_path)), nprocs=world)
    expected = exercise(0, 1)
    assert expected["sum_count.revived.0"] > 0
    assert expected["hierarchical.revived"][0] > 0
    assert expected["multi_codebook.revived"] > 2
    assert expected["residual.revived"] > 0
    for rank in range(world):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), f"{name} on rank {rank}"
