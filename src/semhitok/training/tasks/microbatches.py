"""The micro-batches of a step: forward and backward pass of each, in turn.

Shapes: B images, N tokens, D channels before quantization.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from torch import Tensor, nn

from semhitok.distributed import averaged_gradients


class Differentiable(Protocol):
    """What a forward pass leaves: scalars by name in ``terms``, of which ``loss`` is the one to differentiate."""

    @property
    def terms(self) -> dict[str, Tensor]: ...

    def detached(self) -> Self:
        """The same values, detached, so that the graph can be freed."""
        ...


Item = TypeVar("Item")
Forward = TypeVar("Forward", bound=Differentiable)


@dataclass(frozen=True)
class TokenizerForward:
    """One micro-batch through a tokenizer.

    Attributes:
        pair: target and reconstruction (B,3,H,W), not clamped; None if nothing is reconstructed.
        ids: (B,N), or (B,N,C) with several codes per token.
        features: (B,N,D) before quantization.
        terms: scalars by name; ``loss`` is the one to differentiate.
    """

    pair: tuple[Tensor, Tensor] | None
    ids: Tensor
    features: Tensor
    terms: dict[str, Tensor]

    def detached(self) -> TokenizerForward:
        """The same values, detached, so that the graph can be freed."""
        pair = None if self.pair is None else (self.pair[0], self.pair[1].detach())
        terms = {name: value.detach() for name, value in self.terms.items()}
        return TokenizerForward(pair, self.ids, self.features.detach(), terms)


def accumulate(
    microbatches: Sequence[Item], parameters: Iterable[nn.Parameter], forward: Callable[[Item, int], Forward]
) -> list[Forward]:
    """Add up the gradients of the mean loss of all micro-batches, averaged over the ranks.

    Args:
        microbatches: of equal size.
        parameters: what is trained, in the order of the forward pass.
        forward: a micro-batch and its number -> its forward pass.

    Returns:
        The forward passes, detached.
    """
    parameters, found = list(parameters), []
    for index, batch in enumerate(microbatches):
        passed = forward(batch, index)
        with averaged_gradients(parameters, now=index + 1 == len(microbatches)):
            (passed.terms["loss"] * (1 / len(microbatches))).backward()
        found.append(passed.detached())
    return found
