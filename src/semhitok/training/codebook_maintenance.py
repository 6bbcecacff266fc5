"""Codebook maintenance, the same for every task: hits are counted, codes initialised by k-means and replaced when dead.

Shapes: B images, N tokens (elsewhere: vectors), C codebooks of K codes, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from semhitok import distributed
from semhitok.distributed import gather_in_sample_order
from semhitok.quantizers import CodeUsage, Quantizer
from semhitok.training.state import TrainState, derive_seed


class MaintenanceConfig(Protocol):
    """The fields of a task's configuration that codebook maintenance reads.

    Attributes:
        initialise_step: when the codes are set by k-means; None leaves them as they are.
        revive_every: steps of an interval: in each hits are counted anew, and at its end dead codes are replaced.
        revive_until: share of the run after which no code is replaced any more, so that the codebook settles.
        revive_below: a code is dead below this share of the mean hits.
        reservoir_size: vectors kept to draw from.
    """

    @property
    def initialise_step(self) -> int | None: ...
    @property
    def revive_every(self) -> int: ...
    @property
    def revive_until(self) -> float: ...
    @property
    def revive_below(self) -> float: ...
    @property
    def reservoir_size(self) -> int: ...


class CodebookMaintainer:
    """Keeps the codebooks of one quantizer in use while it is trained.

    Args:
        quantizer: in training; None for continuous features, where there is nothing to do.
        config: see ``MaintenanceConfig``.
        device: of the vectors.
        seed_name: what k-means draws by, with the seed of the run.
        fresh_codebook: the codes are still to be set by k-means; False when they come trained.
        from_batch: k-means also sees the batch of the step in which it sets the codes, which is exactly
            ``initialise_step``, whatever ``fresh_codebook`` says. By default it sees what was collected before.
        vocab_size: number of ids whose usage is reported, where they are not what dead codes are judged by.
        frozen: the quantizer is not trained: its usage is reported, and no code is ever changed.

    Attributes:
        usage: hits of the current interval, for the report.
        hits: hits that dead codes are judged by; the same object as ``usage`` unless ``vocab_size`` is given.
        reservoir: vectors to draw from.
    """

    def __init__(
        self,
        quantizer: Quantizer | None,
        config: MaintenanceConfig,
        device: torch.device,
        *,
        seed_name: str,
        fresh_codebook: bool = False,
        from_batch: bool = False,
        vocab_size: int | None = None,
        frozen: bool = False,
    ) -> None:
        self.quantizer, self.config, self.seed_name = quantizer, config, seed_name
        self.fresh_codebook = fresh_codebook and quantizer is not None and not frozen
        self.from_batch, self.vocab_size, self.frozen = from_batch, vocab_size, frozen
        self.reservoir = Reservoir(config.reservoir_size, device)
        self._count_anew()

    def begin(self, state: TrainState, batch_ND: Tensor | None = None) -> None:
        """What comes before the losses of a step: the codes are set when their time has come. A collective.

        Args:
            batch_ND: this rank's vectors of the step, needed in step ``initialise_step`` with ``from_batch``.
        """
        first = self.config.initialise_step
        if self.from_batch:
            if state.step == first:
                assert batch_ND is not None, "k-means is to see the vectors of this step"
                self.reservoir.add(batch_ND)
                self._initialise(state)
                self.reservoir.clear()
            return
        if not self.fresh_codebook or first is None:
            return
        # A run cut to a time limit may be shorter than the recipe foresaw: a quarter of it at most is waited for.
        if state.step >= min(first, state.total_steps // 4) and len(self.reservoir):
            self.fresh_codebook = False
            self._initialise(state)

    def finish(self, seen: Sequence[tuple[Tensor, Tensor]], state: TrainState) -> dict[str, float]:
        """What follows the optimizer step; the metrics of an interval that ends here. A collective.

        Args:
            seen: vectors (B,N,D) before quantization, without gradients, and ids (B,N) or (B,N,C) of each micro-batch.
        """
        if self.quantizer is None:
            return {}
        for _, ids in seen:
            self.hits.update(self.quantizer.slots(ids))
            if self.usage is not self.hits:
                self.usage.update(ids)
        if not self.frozen:
            self.quantizer.absorb(seen)
        if self._waits(state) or self._replaces(state):
            groups = [found.flatten() for _, ids in seen if (found := self.quantizer.groups(ids)) is not None]
            columns = [torch.cat([vectors_BND.float().flatten(0, 1) for vectors_BND, _ in seen])]
            self.reservoir.add(*columns, *([torch.cat(groups)] if groups else []))
        return self._end_interval(state) if (state.step + 1) % self.config.revive_every == 0 else {}

    def state_dict(self) -> dict[str, Any]:
        """Hits and reservoir of the interval, part of the state of a task."""
        state: dict[str, Any] = {} if self.from_batch else {"fresh_codebook": self.fresh_codebook}
        state |= {"usage": self.usage.state_dict(), "reservoir": self.reservoir.state_dict()}
        return state if self.usage is self.hits else state | {"hits": self.hits.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave, out of the state of a task; strict."""
        if not self.from_batch:
            self.fresh_codebook = state["fresh_codebook"]
        self.usage.load_state_dict(state["usage"])
        if self.usage is not self.hits:
            self.hits.load_state_dict(state["hits"])
        self.reservoir.load_state_dict(state["reservoir"])

    def _initialise(self, state: TrainState) -> None:
        assert self.quantizer is not None
        self.quantizer.initialise(*self.reservoir.local(), seed=derive_seed(state.seed, self.seed_name))

    def _waits(self, state: TrainState) -> bool:
        """Whether k-means is still to come."""
        if self.from_batch:
            return self.config.initialise_step is not None and state.step < self.config.initialise_step
        return self.fresh_codebook

    def _replaces(self, state: TrainState) -> bool:
        """Whether dead codes are replaced at the end of this interval, once there are codes."""
        return not self.frozen and state.step < self.config.revive_until * state.total_steps

    def _end_interval(self, state: TrainState) -> dict[str, float]:
        """Report the usage, replace dead codes, begin to count anew."""
        assert self.quantizer is not None
        counts = self.usage.all_reduce().counts
        if self.vocab_size is None:
            counts = counts.unflatten(0, self.quantizer.counts_shape)
        books = [CodeUsage.of(counts_K) for counts_K in counts.view(-1, counts.shape[-1])]
        metrics = {
            "usage": sum(book.usage for book in books) / len(books),
            "perplexity": sum(book.perplexity for book in books) / len(books),
        }
        just_set = self.from_batch and state.step == self.config.initialise_step  # too few hits to judge by
        if self._replaces(state) and not self._waits(state) and not just_set and len(self.reservoir):
            if self.vocab_size is not None:
                counts = self.hits.all_reduce().counts.unflatten(0, self.quantizer.counts_shape)
            dead = self.quantizer.dead_codes(counts, self.config.revive_below)
            columns = self.reservoir.local()
            metrics["revived"] = float(
                self.quantizer.replace_dead_codes(dead, *columns, seed=state.seed, step=state.step)
            )
        self._count_anew()
        if not self._waits(state):  # what k-means is still to see stays
            self.reservoir.clear()
        return metrics

    def _count_anew(self) -> None:
        self.hits = CodeUsage(1 if self.quantizer is None else torch.Size(self.quantizer.counts_shape).numel())
        self.usage = self.hits if self.vocab_size is None else CodeUsage(self.vocab_size)


class Reservoir:
    """The rows of the last steps, about ``size`` of them; several aligned columns (vectors, their semantic ids) at once.

    Rows are gathered over the ranks in sample order as they come in, so that what is drawn from them does not depend on
    the number of ranks. Part of a task's state: a resumed run draws from the same rows.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        if size < 1:
            raise ValueError(f"a reservoir must hold at least 1 vector, got {size}")
        self.size = size
        self.device = torch.device(device)
        self._steps: list[tuple[Tensor, ...]] = []

    def __len__(self) -> int:
        return sum(len(step[0]) for step in self._steps)

    def add(self, *columns: Tensor) -> None:
        """Add this rank's rows of one optimizer step: vectors (N,D), further columns (N,). A collective."""
        self._steps.append(tuple(gather_in_sample_order(column.detach()).clone() for column in columns))
        while len(self._steps) > 1 and len(self) > self.size:
            self._steps.pop(0)

    def local(self) -> tuple[Tensor, ...]:
        """This rank's equal share of all rows, oldest first: what the quantizers' collectives take."""
        joined = (torch.cat(parts) for parts in zip(*self._steps, strict=True))
        return tuple(column.chunk(distributed.world_size())[distributed.rank()] for column in joined)

    def clear(self) -> None:
        """Forget everything."""
        self._steps = []

    def state_dict(self) -> dict[str, Any]:
        """The rows, step by step."""
        return {"steps": [list(step) for step in self._steps]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave; checkpoints are read to the CPU, the rows go back to the device."""
        self._steps = [tuple(column.to(self.device) for column in step) for step in state["steps"]]
