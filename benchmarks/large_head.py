"""How much memory and time does the loss of a very large head take if logits are never held for all tokens?

    python -m benchmarks.large_head [--quick]

``large_head_loss`` is compared with the plain cross entropy of all logits; in time, on fewer tokens, also with torch's own
chunked ``linear_cross_entropy`` if torch has it. For memory, loss and gradients of hidden states and head are computed once,
each side in its own process; what counts is the peak above the weights, less the size of these gradients. Each side writes
its loss and gradients to a file for comparison.

Shapes: N tokens, V rows of the head, D channels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from benchmarks.measuring import Operation, interleaved, memory_is_measurable, peak_memory
from benchmarks.reporting import Aim, Report, Row, run_alone
from torch import Tensor

from semhitok.losses.large_head import large_head_loss

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sizes:
    """Tokens for measuring memory and for measuring time, rows, channels, rounds of timing."""

    tokens: int
    timed_tokens: int
    rows: int
    dim: int
    rounds: int


# Qwen2's padded vocabulary and the joint codebook of 16,384 x 12.
FULL = Sizes(tokens=4096, timed_tokens=128, rows=152_064 + 196_608, dim=512, rounds=3)
QUICK = Sizes(tokens=256, timed_tokens=64, rows=5000, dim=32, rounds=3)
FEWEST_TOKENS = 1024
# The plain loss holds log-probabilities of all logits and, in the backward pass, two gradients of that size; plus a margin.
PLAIN_COPIES = 3.5
ALLOWED_DIFFERENCE = 1e-4


def our_loss(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """The mean, by chunks of tokens."""
    return large_head_loss(hidden_ND, weight_VD, targets_N)[0] / len(targets_N)


def plain_loss(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """The mean, over all logits."""
    return F.cross_entropy(F.linear(hidden_ND, weight_VD), targets_N)


def torch_loss(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """The mean, by torch's chunks."""
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden_ND, weight_VD, targets_N, options=options)


def sides() -> dict[str, Loss]:
    """Our loss, the plain one, and torch's if available."""
    has_chunks = hasattr(torch.nn, "LinearCrossEntropyOptions")
    return {"ours": our_loss, "plain": plain_loss} | ({"torch": torch_loss} if has_chunks else {})


def case(loss: Loss, tokens: int, rows: int, dim: int, found: Path | None = None) -> Operation:
    """N, V, D -> the loss and its gradients with respect to hidden states and head, written to ``found`` if given."""
    torch.manual_seed(0)
    hidden_ND = torch.randn(tokens, dim, requires_grad=True)
    weight_VD = torch.randn(rows, dim).mul_(dim**-0.5).requires_grad_()
    targets_N = torch.randint(rows, (tokens,))

    def operation() -> None:
        value = loss(hidden_ND, weight_VD, targets_N)
        gradients = torch.autograd.grad(value, (hidden_ND, weight_VD))
        if found is not None:
            torch.save((value.detach(), *gradients), found)

    return operation


def tokens_that_fit(sizes: Sizes) -> int:
    """``sizes.tokens``, halved until the plain loss fits into the memory that is free now.

    Raises:
        MemoryError: not even few tokens fit.
    """
    tokens, free = sizes.tokens, _free_memory()
    while tokens * sizes.rows * 4 * PLAIN_COPIES > free:
        tokens //= 2
        if tokens < FEWEST_TOKENS:
            raise MemoryError(f"the plain loss of {FEWEST_TOKENS} tokens does not fit into {free / 2**30:.1f} GiB")
    return tokens


def difference(found: Path, wanted: Path) -> float:
    """The largest difference of losses and gradients, each relative to the largest magnitude of the expected one."""
    pairs = zip(torch.load(found, mmap=True), torch.load(wanted, mmap=True), strict=True)
    return max(float((each - other).abs().max() / other.abs().max()) for each, other in pairs)


def measure(quick: bool) -> Report:
    """Memory and values in separate processes, times in interleaved rounds."""
    return report(QUICK if quick else FULL, judged=not quick)


def report(sizes: Sizes, *, judged: bool) -> Report:
    """The report for any sizes."""
    tokens = tokens_that_fit(sizes) if memory_is_measurable() else sizes.tokens
    rows = _memory_rows(sizes, tokens, judged=judged) if memory_is_measurable() else []
    times = interleaved(
        {name: case(loss, sizes.timed_tokens, sizes.rows, sizes.dim) for name, loss in sides().items()},
        rounds=sizes.rounds,
    )
    what = f"time, {sizes.timed_tokens:,} tokens"
    rows += [Row.of_times(what, ("ours", times["ours"]), (name, times[name])) for name in times if name != "ours"]
    return Report(
        name="large_head",
        title="Loss of a large head",
        method=f"{sizes.rows:,} rows, {sizes.dim} channels, fp32: loss and gradients of hidden states and head. Memory: what "
        f"{tokens:,} tokens take above weights and gradients, in a process of its own. torch: `linear_cross_entropy` with "
        "its default chunks.",
        rows=rows,
    )


def _memory_rows(sizes: Sizes, tokens: int, *, judged: bool) -> list[Row]:
    gradients = 4 * sizes.dim * (sizes.rows + tokens)
    measured = {"ours": our_loss, "plain": plain_loss}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.pt" for name in measured}
        above = {
            name: float(max(1, peak_memory(case, loss, tokens, sizes.rows, sizes.dim, files[name]) - gradients))
            for name, loss in measured.items()
        }
        differing = difference(files["ours"], files["plain"])
    memory, values = (Aim("at most", 0.25), Aim("at most", 1)) if judged else (None, None)
    allowed, unit = ("allowed", ALLOWED_DIFFERENCE), "of the largest"
    return [
        Row.of_amounts(
            f"memory, {tokens:,} tokens", ("ours", above["ours"]), ("plain", above["plain"]), "bytes", aim=memory
        ),
        Row.of_amounts("loss and gradients beside plain", ("ours differ by", differing), allowed, unit, aim=values),
    ]


def _free_memory() -> int:
    """Bytes available without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no field MemAvailable")


if __name__ == "__main__":
    run_alone(measure, __doc__)
