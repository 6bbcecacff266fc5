"""The protocol of all quantizers, and functions they share.

Shapes: B images, N tokens (elsewhere: vectors), C codes per token, K codes, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semhitok.types import Quantized


class Float32Module(nn.Module):
    """A module whose tensors follow device moves but keep their floating-point type.

    ``.to(torch.bfloat16)``, ``.half()``, ``.double()`` and the same calls on a parent module all go through ``_apply``,
    which is overridden to move the original tensor without rounding it: codes, and with them ids, stay bit-identical.
    Constructors must still pass ``dtype=torch.float32``, because the default dtype may be another.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keep_dtype(tensor: Tensor) -> Tensor:
            applied = fn(tensor)
            return applied if applied.dtype == tensor.dtype else tensor.to(applied.device)

        return super()._apply(keep_dtype, recurse)


@runtime_checkable
class Quantizer(Protocol):
    """Interface of all quantizers in training; derive from ``Float32Module`` and from this.

    Methods with a body are defaults for plain codebooks: hits are counted per id, a code is dead below a fraction of the
    mean, and the codebook is trained by gradients alone.

    Attributes:
        codebooks: names of the parameters or buffers that hold codes. They enter a tokenizer's fingerprint, unlike other
            buffers (statistics), and have no weight decay.
    """

    codebooks: ClassVar[tuple[str, ...]]

    @property
    def counts_shape(self) -> tuple[int, ...]:
        """Shape of the hit counts: (K,), (C,K) with several codes per token, (groups,K) with sub-codebooks."""
        return tuple(getattr(self, self.codebooks[0]).shape[:-1])

    def reset_parameters(self) -> None:
        """Set random codes."""
        ...

    def initialise(self, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, iterations: int = 10) -> None:
        """Sets the codes by k-means over the global batch; independent of the number of ranks. A collective.

        Args:
            z_ND: (N,D) this rank's vectors in sample order.
            groups_N: (N,) the sub-codebook of each vector as returned by ``groups``, for quantizers with sub-codebooks.
        """
        ...

    def replace_dead_codes(
        self, dead: Tensor, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, step: int
    ) -> int:
        """Overwrites dead codes by random vectors of the global batch; independent of the number of ranks. A collective.

        Args:
            dead: bool, as returned by ``dead_codes``; the same on all ranks.
            z_ND, groups_N: as in ``initialise``.
            seed, step: determine which vectors are sampled.

        Returns:
            The number of replaced codes: all dead ones, but at most as many as there are vectors.
        """
        ...

    def slots(self, ids: Tensor) -> Tensor:
        """Indices into the flattened hit counts, for ids returned by ``forward`` and of the same shape."""
        if len(self.counts_shape) == 1:
            return ids
        books, size = self.counts_shape
        return ids + size * torch.arange(books, device=ids.device)

    def groups(self, ids: Tensor) -> Tensor | None:
        """The sub-codebook of each token's code; None for quantizers without sub-codebooks."""
        return None

    def dead_codes(self, counts: Tensor, below: float) -> Tensor:
        """Which codes are dead, bool: those with fewer hits than ``below`` times the mean of their codebook.

        Args:
            counts: hits of shape ``counts_shape``, summed over the ranks.
        """
        return counts < below * counts.double().mean(dim=-1, keepdim=True)

    def absorb(self, seen: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Updates codebooks that follow their vectors (EMA), once per optimizer step; others do nothing. A collective.

        Args:
            seen: vectors (B,N,D) before quantization and their ids for each micro-batch of the step.
        """


class TokenQuantizer(Quantizer, Protocol):
    """A quantizer that needs only the features, so that a tokenizer's configuration can choose it."""

    def __call__(self, z_BND: Tensor, /) -> Quantized:
        """Codes (B,N,D) in the dtype of ``z_BND``, straight-through; ids (B,N) or (B,N,C); losses by name."""
        ...

    def lookup(self, ids: Tensor, /) -> Tensor:
        """Codes of ids (B,N) or (B,N,C) -> (B,N,D), fp32: bit for bit those of the forward pass."""
        ...


class FormulaQuantizer(TokenQuantizer, Protocol):
    """A quantizer whose codes follow from a formula (``codebooks`` is empty): nothing is stored, initialised or replaced."""

    def reset_parameters(self) -> None:
        """Nothing."""

    def initialise(self, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, iterations: int = 10) -> None:
        """Nothing."""

    def replace_dead_codes(
        self, dead: Tensor, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, step: int
    ) -> int:
        """No code is ever replaced."""
        return 0


def straight_through(features: Tensor, codes: Tensor) -> Tensor:
    """``codes`` in the forward pass, the identity on ``features`` in the backward pass (van den Oord et al., 2017).

    The value is bit-identical to ``codes``; the usual ``features + (codes - features)`` rounds, so that decoding stored
    ids would differ from the forward pass.

    Args:
        features: any shape; receives the gradient unchanged.
        codes: same shape, any dtype; returned in the dtype of ``features``.
    """
    return codes.detach().to(features.dtype) + (features - features.detach())


def codebook_losses(z: Tensor, codes: Tensor) -> dict[str, Tensor]:
    """``codebook`` pulls the codes to the features, ``commitment`` the features to the codes; unweighted means.

    van den Oord et al. (2017), eq. 3, second and third term.
    """
    return {"codebook": F.mse_loss(codes, z.detach()), "commitment": F.mse_loss(z, codes.detach())}
