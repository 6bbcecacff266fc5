"""How many pixel codes each semantic code should have for a given vocabulary size (not in the paper, where all have m).

With m codes in d dimensions the mean squared error falls as m^(-2/d) (high-resolution theory: Zador, 1982; Gersho and
Gray, Vector Quantization and Signal Compression, 1992). With f_k the frequency of semantic code k and e_k its error at a
single pixel code, the expected error sum_k f_k e_k m_k^(-2/d) is minimised subject to sum_k m_k = V. For real m_k without
bounds, a Lagrange multiplier gives m_k proportional to (f_k e_k)^(d / (d + 2)). Integers within bounds need no rounding:
the sum is separable and convex, so the greedy choice that adds one code at a time where it saves most is optimal (Fox,
Operations Research 14, 1966).

Shapes: K semantic codes, S steps from the smallest to the largest size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def allot_sizes(
    frequency_K: Tensor, error_K: Tensor, total: int, *, dim: float, minimum: int = 1, maximum: int
) -> list[int]:
    """Sizes m_k with the smallest expected error.

    Args:
        frequency_K: (K,) hits or fractions, at least 0.
        error_K: (K,) mean squared error of each semantic code's patches to a single pixel code, at least 0.
        total: V, the sum of all sizes.
        dim: d, the number of dimensions in which the vectors vary; one less than the channels for l2-normalised codes.
        minimum, maximum: bounds of every size. Time and memory of the lookup grow with the largest size.

    Returns:
        K sizes with sum ``total``; ties go to the lower index.

    Raises:
        ValueError: no sizes within the bounds have that sum, or a value is out of range.
    """
    codes = len(frequency_K)
    if frequency_K.shape != (codes,) or error_K.shape != (codes,):
        raise ValueError(
            f"frequencies and errors need one value per semantic code, got shapes {tuple(frequency_K.shape)} and "
            f"{tuple(error_K.shape)}"
        )
    for name, values_K in (("frequencies", frequency_K), ("errors", error_K)):
        if not (values_K.isfinite().all() and (values_K >= 0).all()):
            raise ValueError(f"{name} must be finite and at least 0, got {float(values_K.min())} as the smallest")
    if dim <= 0:
        raise ValueError(f"dim must be above 0, got {dim}")
    if not 1 <= minimum <= maximum or not codes * minimum <= total <= codes * maximum:
        raise ValueError(
            f"{codes} sizes from {minimum} to {maximum} (at least 1) cannot add up to {total}, only to "
            f"{codes * minimum} to {codes * maximum}"
        )
    size_S = torch.arange(minimum, maximum + 1, dtype=torch.float64)
    saving_KS = (frequency_K.cpu().double() * error_K.cpu().double())[:, None] * -(size_S ** (-2 / dim)).diff()
    # Savings decrease with the size, so the largest of all are the first ones of each code; the stable sort keeps this
    # true for ties.
    best = saving_KS.flatten().argsort(descending=True, stable=True)[: total - codes * minimum]
    extra_K = torch.bincount(best // max(maximum - minimum, 1), minlength=codes)
    return (minimum + extra_K).tolist()
