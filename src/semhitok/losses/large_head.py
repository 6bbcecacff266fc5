"""Cross entropy of a head with very many rows, without materialising the logits of all tokens.

    loss_n = logsumexp_v(h_n . w_v) - h_n . w_{t_n}
    d loss_n / d logit_nv = softmax_nv - [v = t_n]

Tokens are processed in chunks. A chunk's logits are turned in place into their gradient, which is accumulated into those of
hidden states and weight at once, so the backward pass only scales them. With 348,672 rows the logits of 4,096 tokens take
5.7 GB in fp32, and twice that with their gradient; a chunk of 128 takes 0.2 GB, one of 1,024 takes 1.4 GB.

Each chunk reads the weight twice and reads and writes its fp32 gradient: 12 bytes for 6 n operations of a weight's element, n/2
operations per byte. A GPU of 300 operations per byte needs more than 600 tokens; a CPU does not.

``torch.nn.functional.linear_cross_entropy`` (torch 2.13) can also work in chunks, but returns one reduced number, while text and
images are logged separately, and older versions of torch do not have it.

Shapes: N tokens, n tokens of one chunk, V rows of the head, v rows of one block, D channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CPU_CHUNK, GPU_CHUNKS = 128, (4096, 2048, 1024)
GPU_CHUNK_BYTES = 2 * 2**30
"""Most bytes of a chunk's logits in fp32; with the smallest of ``GPU_CHUNKS`` they may be more."""
# Rows whose gradient is computed at a time if it must be cast, which limits the size of the copy.
BLOCK_ROWS = 16384


def chunk_tokens_for(device_type: str, rows: int) -> int:
    """n for a head of ``rows`` rows: 128 on a CPU, otherwise 1,024 to 4,096, as many as ``GPU_CHUNK_BYTES`` allow."""
    if device_type == "cpu":
        return CPU_CHUNK
    return next((chunk for chunk in GPU_CHUNKS if 4 * chunk * rows <= GPU_CHUNK_BYTES), GPU_CHUNKS[-1])


def large_head_loss(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    factors_N: Tensor | None = None,
    chunk_tokens: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross entropy of ``hidden @ weight.T`` against ``targets``.

    Matrix products run in autocast's dtype if it is enabled, otherwise in that of the weight; softmax and sums in fp32.

    Args:
        hidden_ND: (N,D) hidden states.
        weight_VD: (V,D) rows of the head; its gradient is computed only if it requires one.
        targets_N: (N,) int64 in [0, V).
        factors_N: (N,) weights of the tokens in the sum; None is 1 for all.
        chunk_tokens: n, the number of tokens whose logits are held at a time; by default ``chunk_tokens_for`` the device.

    Returns:
        The weighted sum over tokens, an fp32 scalar with first-order gradients, and the unweighted loss of each token, (N,)
        fp32, without gradient.

    Raises:
        ValueError: the shapes do not match, a target is out of range, or chunk_tokens is below 1.
    """
    if chunk_tokens is None:
        chunk_tokens = chunk_tokens_for(hidden_ND.device.type, len(weight_VD))
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be at least 1, got {chunk_tokens}")
    if hidden_ND.ndim != 2 or hidden_ND.shape[1] != weight_VD.shape[1] or targets_N.shape != hidden_ND.shape[:1]:
        raise ValueError(
            f"hidden (N,D), weight (V,D) and targets (N) are needed, got {tuple(hidden_ND.shape)}, "
            f"{tuple(weight_VD.shape)} and {tuple(targets_N.shape)}"
        )
    if factors_N is not None and factors_N.shape != targets_N.shape:
        raise ValueError(
            f"factors must have one value for each of {len(targets_N)} targets, got {tuple(factors_N.shape)}"
        )
    # On other devices the check would make the host wait, and the lookup of a wrong target raises an error there.
    if (
        targets_N.device.type == "cpu"
        and len(targets_N)
        and not 0 <= int(targets_N.min()) <= int(targets_N.max()) < len(weight_VD)
    ):
        worst = int(targets_N.min()) if int(targets_N.min()) < 0 else int(targets_N.max())
        raise ValueError(f"targets must lie in [0, {len(weight_VD)}), got {worst}")
    device = hidden_ND.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VD.dtype
    wants = torch.is_grad_enabled() and hidden_ND.requires_grad, torch.is_grad_enabled() and weight_VD.requires_grad
    return _LargeHead.apply(hidden_ND, weight_VD, targets_N, factors_N, chunk_tokens, dtype, wants)  # pyright: ignore


class _LargeHead(torch.autograd.Function):
    """See ``large_head_loss``."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        factors_N: Tensor | None,
        chunk_tokens: int,
        dtype: torch.dtype,
        wants: tuple[bool, bool],
    ) -> tuple[Tensor, Tensor]:
        rows_VD, losses = weight_VD.to(dtype), []
        hidden_gradient = torch.empty_like(hidden_ND) if wants[0] else None
        weight_gradient = torch.zeros_like(weight_VD) if wants[1] else None
        with torch.autocast(hidden_ND.device.type, enabled=False):
            for start in range(0, len(hidden_ND), chunk_tokens):
                part = slice(start, start + chunk_tokens)
                hidden_nD, targets_n = hidden_ND[part].to(dtype), targets_N[part, None]
                logits_nV = F.linear(hidden_nD, rows_VD).float()
                chosen_n1 = logits_nV.gather(1, targets_n)
                total_n1 = logits_nV.logsumexp(dim=1, keepdim=True)
                losses.append((total_n1 - chosen_n1)[:, 0])
                if not any(wants):
                    continue
                gradient_nV = logits_nV.sub_(total_n1).exp_()
                gradient_nV.scatter_add_(1, targets_n, gradient_nV.new_full(targets_n.shape, -1.0))
                if factors_N is not None:
                    gradient_nV.mul_(factors_N[part, None])
                gradient_nV = gradient_nV.to(dtype)
                if hidden_gradient is not None:
                    hidden_gradient[part] = gradient_nV @ rows_VD
                if weight_gradient is not None:
                    _add_outer(weight_gradient, gradient_nV, hidden_nD)
        ctx.save_for_backward(*(each for each in (hidden_gradient, weight_gradient) if each is not None))
        ctx.wants = wants
        losses_N = torch.cat(losses) if losses else hidden_ND.new_zeros(0, dtype=torch.float32)
        ctx.mark_non_differentiable(losses_N)
        return losses_N.sum() if factors_N is None else losses_N @ factors_N.float(), losses_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        factor, found = gradients[0], iter(ctx.saved_tensors)
        # In place: a copy of the weight's gradient would be as large as the weight.
        scaled = [next(found).mul_(factor) if wanted else None for wanted in ctx.wants]
        return (*scaled, None, None, None, None, None)


def _add_outer(weight_gradient: Tensor, gradient_nV: Tensor, hidden_nD: Tensor) -> None:
    """Add ``gradient.T @ hidden`` (V,D)."""
    if weight_gradient.dtype == gradient_nV.dtype:
        weight_gradient.addmm_(gradient_nV.T, hidden_nD)
        return
    for part, block_nv in zip(weight_gradient.split(BLOCK_ROWS), gradient_nV.split(BLOCK_ROWS, dim=1), strict=True):
        part.add_(block_nv.T @ hidden_nD)
