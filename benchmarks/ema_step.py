"""What does a training step of the semantic codebook cost, a forward pass with one EMA update?

    python -m benchmarks.ema_step [--quick]

Compared with vector-quantize-pytorch under the same rule (no k-means, no rotation trick, no dead-code replacement), and
with the lower bound: the bare matrix product of all vectors and all codes, written to preallocated memory.

Shapes: N tokens, K codes, D channels.
"""

from __future__ import annotations

import torch
from benchmarks.measuring import Operation, interleaved, memory_is_measurable, peak_memory
from benchmarks.reporting import Aim, Report, Row, run_alone
from vector_quantize_pytorch import VectorQuantize

from semhitok.quantizers import EMAQuantizer

DIM, DECAY = 48, 0.99
SIZES = (16_384, 16_384)
QUICK_SIZES = (512, 1024)
TOKENS_PER_IMAGE = 256


def our_case(count: int, codes: int) -> Operation:
    """N, K -> forward and update."""
    torch.manual_seed(0)
    quantizer = EMAQuantizer(codes, DIM, decay=DECAY).train()
    z_BND = torch.randn(count // TOKENS_PER_IMAGE, TOKENS_PER_IMAGE, DIM)

    def step() -> None:
        ids_BN = quantizer(z_BND).ids
        quantizer.update(quantizer.assignments(z_BND, ids_BN))

    return step


def peer_case(count: int, codes: int) -> Operation:
    """The same by vector-quantize-pytorch, which updates in its forward pass."""
    torch.manual_seed(0)
    quantizer = VectorQuantize(
        dim=DIM,
        codebook_size=codes,
        decay=DECAY,
        kmeans_init=False,
        rotation_trick=False,
        threshold_ema_dead_code=0,
    ).train()
    z_BND = torch.randn(count // TOKENS_PER_IMAGE, TOKENS_PER_IMAGE, DIM)
    return lambda: quantizer(z_BND)


def floor_case(count: int, codes: int) -> Operation:
    """The matrix product (N,D) x (D,K) in fp32."""
    torch.manual_seed(0)
    z_ND, codebook_KD, scores_NK = torch.randn(count, DIM), torch.randn(codes, DIM), torch.empty(count, codes)
    return lambda: torch.mm(z_ND, codebook_KD.T, out=scores_NK)


def measure(quick: bool) -> Report:
    """Times in interleaved rounds, peak memory in processes of their own."""
    sizes = QUICK_SIZES if quick else SIZES
    times = interleaved(
        {"semhitok": our_case(*sizes), "peer": peer_case(*sizes), "matmul": floor_case(*sizes)},
        rounds=3 if quick else 5,
    )
    ours, peer = ("semhitok", times["semhitok"]), ("vector-quantize-pytorch", times["peer"])
    rows = [
        Row.of_times("time", peer, ours, aim=None if quick else Aim("at least", 10)),
        Row.of_times("time", ours, ("bare matmul", times["matmul"]), aim=None if quick else Aim("at most", 2)),
    ]
    if memory_is_measurable():
        amounts = (peer[0], peak_memory(peer_case, *sizes)), (ours[0], peak_memory(our_case, *sizes))
        aim = None if quick else Aim("at least", 25)
        rows.append(Row.of_amounts("memory beyond the inputs", *amounts, "bytes", aim=aim))
    return Report(
        name="ema_step",
        title="A training step of the EMA codebook",
        method=f"{sizes[0]:,} tokens, {sizes[1]:,} codes of {DIM} channels, fp32: nearest codes, straight-through codes, "
        "commitment loss, and the update of the codebook.",
        rows=rows,
    )


if __name__ == "__main__":
    run_alone(measure, __doc__)
