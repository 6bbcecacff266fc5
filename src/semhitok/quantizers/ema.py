"""EMA vector quantization, SemHiTok's semantic codebook (paper section 3.1, eqs. 2 and 4).

Euclidean, not l2-normalised. The forward pass is pure; the codebook moves only in ``update``, once per optimizer step.

Shapes: B images, N tokens (elsewhere: vectors), K codes, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from semhitok.distributed import gather_in_sample_order
from semhitok.quantizers.base import Float32Module, Quantizer, straight_through
from semhitok.quantizers.dead_codes import replace_dead
from semhitok.quantizers.kmeans import Assignments, assign, shared_kmeans
from semhitok.quantizers.lookup import nearest_code
from semhitok.types import Quantized

UpdateRule = Literal["sum_count", "batch_mean"]


class EMAQuantizer(Float32Module, Quantizer):
    """A codebook that follows its assigned vectors by an exponential moving average.

    There are two update rules; the paper's eq. 4 averages batch means, the usual EMA averages counts and sums:

    * ``sum_count`` (default; van den Oord et al., 2017, appendix A.1): c_k = sums_k / counts_k, both averaged over
      steps, with Laplace-smoothed counts. A code with few hits moves little.
    * ``batch_mean`` (literally eq. 4): c_k <- decay c_k + (1 - decay) mean of the vectors assigned in this batch; a
      code without vectors does not move.

    Args:
        codebook_size: K.
        dim: D, 48 in the paper.
        decay: momentum of the averages, in [0,1).
        update_rule: see above.
        epsilon: Laplace smoothing of the counts; used by ``sum_count`` only.

    Attributes:
        codebook_KD: fp32 buffer, the codes.
        counts_K, sums_KD: fp32 buffers, moving averages of the number and the sum of vectors per code, under both rules.
    """

    codebooks: ClassVar[tuple[str, ...]] = ("codebook_KD",)
    codebook_KD: Tensor
    counts_K: Tensor
    sums_KD: Tensor

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        *,
        decay: float = 0.99,
        update_rule: UpdateRule = "sum_count",
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay is {decay}; it must lie in [0, 1).")
        if update_rule not in get_args(UpdateRule):
            raise ValueError(f"EMA update rule is {update_rule!r}; it must be 'sum_count' or 'batch_mean'.")
        self.decay = decay
        self.update_rule: UpdateRule = update_rule
        self.epsilon = epsilon
        self.register_buffer("codebook_KD", torch.empty(codebook_size, dim, dtype=torch.float32))
        self.register_buffer("counts_K", torch.empty(codebook_size, dtype=torch.float32))
        self.register_buffer("sums_KD", torch.empty(codebook_size, dim, dtype=torch.float32))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set random codes of unit expected length, each with the weight of one vector per step."""
        nn.init.normal_(self.codebook_KD, std=self.codebook_KD.shape[1] ** -0.5)
        self._reset_statistics()

    def forward(self, z_BND: Tensor) -> Quantized:
        """Quantize to the nearest codes; nothing is updated, not even in training mode.

        Args:
            z_BND: (B,N,D) features, any float dtype.

        Returns:
            codes (B,N,D) in the dtype of ``z_BND``, straight-through; ids in [0,K); losses: ``commitment``, the mean
            squared error of the features to their (constant) codes.
        """
        z_ND = rearrange(z_BND, "b n d -> (b n) d").float()
        ids_BN = rearrange(nearest_code(z_ND.detach(), self.codebook_KD), "(b n) -> b n", b=z_BND.shape[0])
        codes_BND = self.lookup(ids_BN)
        return Quantized(
            codes=straight_through(z_BND, codes_BND),
            ids=ids_BN,
            losses={"commitment": F.mse_loss(z_BND.float(), codes_BND)},
        )

    def lookup(self, ids: Tensor) -> Tensor:
        """Codes of ids of any shape (...) -> (...,D), fp32 and detached from any graph."""
        # Indexing copies, so a later update cannot change what a graph has saved.
        return self.codebook_KD[ids]

    def absorb(self, seen: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Update the codebook with the vectors of all micro-batches; see ``Quantizer.absorb``."""
        self.update(reduce(add, (self.assignments(z_BND, ids_BN) for z_BND, ids_BN in seen)))

    def assignments(self, z_BND: Tensor, ids_BN: Tensor) -> Assignments:
        """Statistics of this rank's vectors; add those of micro-batches with ``+``."""
        return assign(rearrange(z_BND, "b n d -> (b n) d"), rearrange(ids_BN, "b n -> (b n)"), len(self.codebook_KD))

    @torch.no_grad()
    def update(self, assignments: Assignments) -> None:
        """Update the codebook once with the statistics of the whole optimizer step.

        A collective: statistics are summed over the ranks first, so that all codebooks stay bit-identical.
        """
        batch = assignments.over_ranks()
        self.counts_K.lerp_(batch.counts_K.float(), 1 - self.decay)
        self.sums_KD.lerp_(batch.sums_KD.float(), 1 - self.decay)
        if self.update_rule == "sum_count":
            total = self.counts_K.sum()
            smoothed_K = (self.counts_K + self.epsilon) / (total + len(self.counts_K) * self.epsilon) * total
            self.codebook_KD.copy_(self.sums_KD / smoothed_K[:, None])
        else:
            mean_KD = (batch.sums_KD / batch.counts_K.clamp_min(1)[:, None]).float()
            moved_KD = self.codebook_KD.lerp(mean_KD, 1 - self.decay)
            self.codebook_KD.copy_(torch.where(batch.counts_K[:, None] > 0, moved_KD, self.codebook_KD))

    @torch.no_grad()
    def initialise(self, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, iterations: int = 10) -> None:
        """k-means; see ``Quantizer.initialise``.

        The paper does not state the initialisation; VQKD, which it follows, uses 10 iterations. With fewer vectors than
        codes, the remaining codes are noisy copies of vectors.
        """
        z_ND = gather_in_sample_order(z_ND)
        self.codebook_KD.copy_(shared_kmeans(z_ND, len(self.codebook_KD), iterations=iterations, seed=seed))
        self._reset_statistics()

    @torch.no_grad()
    def replace_dead_codes(
        self, dead: Tensor, z_ND: Tensor, groups_N: Tensor | None = None, *, seed: int, step: int
    ) -> int:
        """See ``Quantizer.replace_dead_codes``. A new code starts with the average count, so that it is not dead at once."""
        replaced = replace_dead(self.codebook_KD, gather_in_sample_order(z_ND), dead, seed=seed, step=step)
        self.counts_K[replaced] = self.counts_K.mean()
        self.sums_KD[replaced] = self.codebook_KD[replaced] * self.counts_K[replaced, None]
        return len(replaced)

    def _reset_statistics(self) -> None:
        nn.init.ones_(self.counts_K)
        self.sums_KD.copy_(self.codebook_KD)
