"""Codebook maintenance for every task: counts hits, initialises codes by k-means and replaces dead codes.

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
        initialise_step: the step at which k-means sets the codes; None leaves them as they are.
        revive_every: length of an interval in steps. Hits are counted per interval; dead codes are replaced at its end.
        revive_until: fraction of the run after which codes are no longer replaced, so that the codebook can settle.
        revive_below: a code is dead if it has fewer hits than this fraction of the mean.
        reservoir_size: number of vectors kept to sample replacements from.
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
        quantizer: the quantizer in training; None for continuous features, which need no maintenance.
        config: see ``MaintenanceConfig``.
        device: the device that holds the vectors.
        seed_name: seeds k-means together with the seed of the run.
        fresh_codebook: whether k-means is still to set the codes; False if they are already trained.
        from_batch: k-means runs exactly at ``initialise_step``, regardless of ``fresh_codebook``, and includes the batch
            of that step. By default it sees only the vectors collected before.
        vocab_size: number of ids whose usage is reported, if these differ from the codes that dead codes are found among.
        frozen: the quantizer is not trained: its usage is reported, but codes never change.

    Attributes:
        usage: hits of the current interval, for logging.
        hits: hits that decide which codes are dead; the same object as ``usage`` unless ``vocab_size`` is given.
        reservoir: recent vectors to sample from.
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
        self._reset_counts()

    def begin(self, state: TrainState, batch_ND: Tensor | None = None) -> None:
        """Runs before the losses of a step and initialises the codes when they are due. A collective.

        Args:
            batch_ND: (N,D) this rank's vectors of the step; required at ``initialise_step`` with ``from_batch``.
        """
        first = self.config.initialise_step
        if self.from_batch:
            if state.step == first:
                assert batch_ND is not None, "k-means needs the vectors of this step"
                self.reservoir.add(batch_ND)
                self._initialise(state)
                self.reservoir.clear()
            return
        if not self.fresh_codebook or first is None:
            return
        # A time limit may make a run shorter than the recipe assumed: wait for at most a quarter of it.
        if state.step >= min(first, state.total_steps // 4) and len(self.reservoir):
            self.fresh_codebook = False
            self._initialise(state)

    def finish(self, seen: Sequence[tuple[Tensor, Tensor]], state: TrainState) -> dict[str, float]:
        """Runs after the optimizer step; returns metrics if an interval ends here. A collective.

        Args:
            seen: for each micro-batch the detached vectors (B,N,D) before quantization and the ids (B,N) or (B,N,C).
        """
        if self.quantizer is None:
            return {}
        for _, ids in seen:
            self.hits.update(self.quantizer.slots(ids))
            if self.usage is not self.hits:
                self.usage.update(ids)
        if not self.frozen:
            self.quantizer.absorb(seen)
        if self._waits(state) or (self._replaces(state) and self._is_kept(seen, state)):
            groups = [found.flatten() for _, ids in seen if (found := self.quantizer.groups(ids)) is not None]
            columns = [torch.cat([vectors_BND.float().flatten(0, 1) for vectors_BND, _ in seen])]
            self.reservoir.add(*columns, *([torch.cat(groups)] if groups else []))
        return self._end_interval(state) if (state.step + 1) % self.config.revive_every == 0 else {}

    def state_dict(self) -> dict[str, Any]:
        """Hits of all ranks and reservoir of the interval; part of a task's state. A collective."""
        state: dict[str, Any] = {} if self.from_batch else {"fresh_codebook": self.fresh_codebook}
        state |= {"usage": self.usage.all_reduce().state_dict(), "reservoir": self.reservoir.state_dict()}
        return state if self.usage is self.hits else state | {"hits": self.hits.all_reduce().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned from a task's state; strict."""
        if not self.from_batch:
            self.fresh_codebook = state["fresh_codebook"]
        _restore(self.usage, state["usage"])
        if self.usage is not self.hits:
            _restore(self.hits, state["hits"])
        self.reservoir.load_state_dict(state["reservoir"])

    def _initialise(self, state: TrainState) -> None:
        assert self.quantizer is not None
        self.quantizer.initialise(*self.reservoir.local(), seed=derive_seed(state.seed, self.seed_name))

    def _waits(self, state: TrainState) -> bool:
        """Whether k-means has yet to run."""
        if self.from_batch:
            return self.config.initialise_step is not None and state.step < self.config.initialise_step
        return self.fresh_codebook

    def _replaces(self, state: TrainState) -> bool:
        """Whether dead codes are replaced at the end of this interval, provided that codes are initialised."""
        return not self.frozen and state.step < self.config.revive_until * state.total_steps

    def _is_kept(self, seen: Sequence[tuple[Tensor, Tensor]], state: TrainState) -> bool:
        """Whether this step's vectors will still be in the reservoir when the interval ends.

        Every step adds as many. Those of earlier steps would be gathered over the ranks only to be dropped again.
        """
        rows = distributed.world_size() * sum(vectors_BND.shape[:-1].numel() for vectors_BND, _ in seen)
        later = self.config.revive_every - 1 - state.step % self.config.revive_every
        return later * rows + rows <= self.config.reservoir_size or not later

    def _end_interval(self, state: TrainState) -> dict[str, float]:
        """Compute usage metrics, replace dead codes and reset the counts."""
        assert self.quantizer is not None
        counts = self.usage.all_reduce().counts
        if self.vocab_size is None:
            counts = counts.unflatten(0, self.quantizer.counts_shape)
        books = [CodeUsage.of(counts_K) for counts_K in counts.view(-1, counts.shape[-1])]
        metrics = {
            "usage": sum(book.usage for book in books) / len(books),
            "perplexity": sum(book.perplexity for book in books) / len(books),
        }
        just_set = self.from_batch and state.step == self.config.initialise_step  # too few hits to tell
        if self._replaces(state) and not self._waits(state) and not just_set and len(self.reservoir):
            if self.vocab_size is not None:
                counts = self.hits.all_reduce().counts.unflatten(0, self.quantizer.counts_shape)
            dead = self.quantizer.dead_codes(counts, self.config.revive_below)
            columns = self.reservoir.local()
            metrics["revived"] = float(
                self.quantizer.replace_dead_codes(dead, *columns, seed=state.seed, step=state.step)
            )
        self._reset_counts()
        if not self._waits(state):  # k-means still needs the vectors
            self.reservoir.clear()
        return metrics

    def _reset_counts(self) -> None:
        self.hits = CodeUsage(1 if self.quantizer is None else torch.Size(self.quantizer.counts_shape).numel())
        self.usage = self.hits if self.vocab_size is None else CodeUsage(self.vocab_size)


def _restore(usage: CodeUsage, of_all_ranks: Mapping[str, Any]) -> None:
    """Only sums over the ranks matter: the main rank takes over the hits, the others count from zero, however many there are."""
    usage.load_state_dict(of_all_ranks)
    if not distributed.is_main():
        usage.counts.zero_()


class Reservoir:
    """The most recent rows, about ``size`` of them, in aligned columns (vectors and, if needed, their semantic ids).

    Rows are gathered over the ranks in sample order as they arrive, so samples from them do not depend on the number
    of ranks. The reservoir is part of a task's state: a resumed run samples from the same rows.
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
        """This rank's equal share of all rows, oldest first, as the quantizers' collectives expect."""
        joined = (torch.cat(parts) for parts in zip(*self._steps, strict=True))
        return tuple(column.chunk(distributed.world_size())[distributed.rank()] for column in joined)

    def clear(self) -> None:
        """Remove all rows."""
        self._steps = []

    def state_dict(self) -> dict[str, Any]:
        """The rows, step by step."""
        return {"steps": [list(step) for step in self._steps]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; rows are moved to the device, since checkpoints load on the CPU."""
        self._steps = [tuple(column.to(self.device) for column in step) for step in state["steps"]]
