"""What every codebook module shares: it stays in fp32 however its model is cast, and its codes are straight-through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class Float32Module(nn.Module):
    """Base of the codebook modules: their tensors follow device moves but never a change of floating-point type.

    ``.to(torch.bfloat16)``, ``.half()``, ``.double()`` and the same calls on a parent module all end in ``_apply``, so
    that is what is overridden. The original tensor is moved, never rounded to the new type and back: codes, and with
    them ids, stay bit-identical. Constructors must still name ``dtype=torch.float32`` themselves, because a model may
    be built under another default dtype.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keep_dtype(tensor: Tensor) -> Tensor:
            applied = fn(tensor)
            return applied if applied.dtype == tensor.dtype else tensor.to(applied.device)

        return super()._apply(keep_dtype, recurse)


def straight_through(features: Tensor, codes: Tensor) -> Tensor:
    """``codes`` in the forward pass, the identity on ``features`` in the backward pass (van den Oord et al., 2017).

    Written so that the value is ``codes`` to the last bit; the usual ``features + (codes - features)`` rounds, and
    decoding stored ids would then differ from the forward pass.

    Args:
        features: any shape; receives the gradient unchanged.
        codes: same shape, any dtype; returned in the dtype of ``features``.
    """
    return codes.detach().to(features.dtype) + (features - features.detach())
