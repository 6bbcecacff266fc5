"""How much faster is the lookup of ids by SGHC than a flat search over an equally large vocabulary, and in how much memory?

    python -m benchmarks.sghc_lookup [--quick]

SGHC: the nearest of K semantic codes of 48 channels, then the best of the m pixel codes of 16 channels under it. Flat: the
nearest of K * m codes of 64 channels, by one fused matrix product per chunk of scores and its argmin. A flat search with
this package's own tiled lookup is measured as well: its ratio shows what the hierarchy alone saves.

Shapes: N vectors, K semantic codes of D channels, m pixel codes under each; V = K * m codes, C channels.
"""

from __future__ import annotations

import torch
from benchmarks.measuring import Operation, interleaved, memory_is_measurable, peak_memory
from benchmarks.reporting import Aim, Report, Row, run_alone
from torch import Tensor

from semhitok.quantizers import EMAQuantizer, HierarchicalQuantizer
from semhitok.quantizers.grouped import nearest_in_group
from semhitok.quantizers.lookup import nearest_code

SEMANTIC_DIM, PIXEL_DIM = 48, 16
SCORE_BYTES = 256 * 2**20
MEMORY_ALLOWED = 128 * 10**6
SIZES = (4096, 16_384, 12)
QUICK_SIZES = (256, 512, 4)


@torch.no_grad()
def flat_search(z_NC: Tensor, table_VC: Tensor, score_bytes: int = SCORE_BYTES) -> Tensor:
    """Ids (N,) of the nearest codes by Euclidean distance, holding at most ``score_bytes`` of scores at a time."""
    rows = max(1, score_bytes // (4 * len(table_VC)))
    squares_V = table_VC.square().sum(-1)
    return torch.cat([torch.addmm(squares_V, z_nC, table_VC.T, alpha=-2).argmin(1) for z_nC in z_NC.split(rows)])


def hierarchical_case(count: int, codes: int, subcodes: int) -> Operation:
    """N, K, m -> the lookup of N joint ids."""
    torch.manual_seed(0)
    semantic, pixel = EMAQuantizer(codes, SEMANTIC_DIM), HierarchicalQuantizer(codes, subcodes, PIXEL_DIM)
    z_ND, unit_ND = torch.randn(count, SEMANTIC_DIM), torch.randn(count, PIXEL_DIM)
    codebook_KmD = pixel.codebook_KmD.detach()

    def look_up() -> Tensor:
        semantic_ids = nearest_code(z_ND, semantic.codebook_KD)
        return pixel.flatten_ids(semantic_ids, nearest_in_group(unit_ND, codebook_KmD, semantic_ids))

    return look_up


def flat_case(count: int, codes: int, subcodes: int) -> Operation:
    """N, K, m -> a flat search for N ids among K * m."""
    z_NC, table_VC = _flat_inputs(count, codes * subcodes)
    return lambda: flat_search(z_NC, table_VC)


def tiled_flat_case(count: int, codes: int, subcodes: int) -> Operation:
    """The same search by ``nearest_code``."""
    z_NC, table_VC = _flat_inputs(count, codes * subcodes)
    return lambda: nearest_code(z_NC, table_VC)


def measure(quick: bool) -> Report:
    """Times in interleaved rounds, peak memory in separate processes."""
    sizes = QUICK_SIZES if quick else SIZES
    sides = {
        "SGHC": hierarchical_case(*sizes),
        "flat": flat_case(*sizes),
        "flat, our tiles": tiled_flat_case(*sizes),
    }
    times = interleaved(sides, rounds=3 if quick else 7)
    sghc = ("SGHC", times["SGHC"])
    rows = [
        Row.of_times("time", ("flat", times["flat"]), sghc, aim=None if quick else Aim("at least", 20)),
        Row.of_times("time", ("flat, our tiles", times["flat, our tiles"]), sghc),
    ]
    if memory_is_measurable():
        extra, flat_extra = peak_memory(hierarchical_case, *sizes), peak_memory(flat_case, *sizes)
        allowed = ("allowed", float(MEMORY_ALLOWED))
        aim = None if quick else Aim("at most", 1)
        rows += [
            Row.of_amounts("memory beyond the inputs", ("SGHC", extra), allowed, "bytes", aim=aim),
            Row.of_amounts("memory beyond the inputs", ("flat", flat_extra), ("SGHC", extra), "bytes"),
        ]
    return Report(
        name="sghc_lookup",
        title="Ids by SGHC against a flat search",
        method=f"N = {sizes[0]:,} vectors, K = {sizes[1]:,}, m = {sizes[2]}: V = {sizes[1] * sizes[2]:,}. SGHC searches "
        f"K codes of {SEMANTIC_DIM} channels, then m of {PIXEL_DIM}; flat searches V codes of "
        f"{SEMANTIC_DIM + PIXEL_DIM} with at most {SCORE_BYTES // 2**20} MiB of scores at a time. fp32 throughout.",
        rows=rows,
    )


def _flat_inputs(count: int, size: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(count, SEMANTIC_DIM + PIXEL_DIM), torch.randn(size, SEMANTIC_DIM + PIXEL_DIM)


if __name__ == "__main__":
    run_alone(measure, __doc__)
