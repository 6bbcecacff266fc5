"""How many pixel codes each semantic code should have, under a given vocabulary (not in the paper, where all have m).

Of m codes in d dimensions the mean squared error falls as m^(-2/d) (high-resolution theory: Zador, 1982; Gersho and
Gray, Vector Quantization and Signal Compression, 1992). With f_k the frequency of semantic code k and e_k its error at a
single pixel code, the expected error is sum_k f_k e_k m_k^(-2/d), to be least under sum_k m_k = V. Without bounds
and for real m_k a Lagrange multiplier gives m_k proportional to (f_k e_k)^(d / (d + 2)). Whole numbers within bounds need
no rounding: the sum is separable and convex, so that giving one code at a time to where it saves most is optimal
(Fox, Operations Research 14, 1966).

Shapes: K semantic codes, S steps from the smallest to the largest size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def allot_sizes(
    frequency_K: Tensor, error_K: Tensor, total: int, *, dim: float, minimum: int = 1, maximum: int
) -> list[int]:
    """Sizes m_k of least expected error.

    Args:
        frequency_K: (K,) hits or shares, at least 0.
        error_K: (K,) mean squared error of each semantic code's patches to a single pixel code, at least 0.
        total: V, the sum of all sizes.
        dim: d, dimensions in which the vectors vary: one less than the channels of l2-normalised codes. Fewer effective
            dimensions make more codes pay off less.
        minimum, maximum: bounds of every size. The lookup costs time and memory by the largest size.

    Returns:
        K sizes, their sum exactly ``total``; equal savings go to the lower index.

    Raises:
        ValueError: no sizes within the bounds have that sum, or a value is out of its range.
    """
    codes = len(frequency_K)
    if frequency_K.shape != (codes,) or error_K.shape != (codes,):
        raise ValueError(
            f"frequencies and errors must be one for each semantic code, got shapes {tuple(frequency_K.shape)} and "
            f"{tuple(error_K.shape)}"
        )
    for name, values_K in (("frequencies", frequency_K), ("errors", error_K)):
        if not (values_K.isfinite().all() and (values_K >= 0).all()):
            raise ValueError(f"{name} must be finite and at least 0, got {float(values_K.min())} as the smallest")
    if dim <= 0:
        raise ValueError(f"dim must be above 0, got {dim}")
    if not 1 <= minimum <= maximum or not codes * minimum <= total <= codes * maximum:
        raise ValueError(
            f"{codes} sizes from {minimum} to {maximum} (at least 1) cannot make {total} in all, only "
            f"{codes * minimum} to {codes * maximum}"
        )
    size_S = torch.arange(minimum, maximum + 1, dtype=torch.float64)
    saving_KS = (frequency_K.cpu().double() * error_K.cpu().double())[:, None] * -(size_S ** (-2 / dim)).diff()
    # Savings fall with the size, so the largest ones of all are the first ones of each code; so they are, too, among
    # equals, because the sort is stable.
    best = saving_KS.flatten().argsort(descending=True, stable=True)[: total - codes * minimum]
    extra_K = torch.bincount(best // max(maximum - minimum, 1), minlength=codes)
    return (minimum + extra_K).tolist()
