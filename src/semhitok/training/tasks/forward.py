"""What one micro-batch through a branch leaves behind: values for the rest of the step, and the terms of its loss.

Shapes: B images, N tokens, d_s and d_p semantic and pixel channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from semhitok.types import Quantized


@dataclass(frozen=True)
class SemanticForward:
    """One micro-batch through the semantic branch.

    Attributes:
        projected: (B,N,d_s) fp32 vectors before quantization, without gradients.
        quantized: their codes, straight-through, and ids.
        terms: scalars by name; ``loss`` is what is differentiated.
    """

    projected: Tensor
    quantized: Quantized
    terms: dict[str, Tensor]

    def detached(self) -> SemanticForward:
        """The same values without the graph, which is then free."""
        quantized = Quantized(self.quantized.codes.detach(), self.quantized.ids, {})
        return SemanticForward(self.projected, quantized, {name: value.detach() for name, value in self.terms.items()})


@dataclass(frozen=True)
class PixelForward:
    """One micro-batch through the pixel branch.

    Attributes:
        target, reconstruction: (B,3,H,W) what is to be drawn and what is drawn, not clamped.
        ids: (B,N) joint ids.
        pixel_features: (B,N,d_p) before quantization.
        terms: scalars by name; ``loss`` is what is differentiated.
    """

    target: Tensor
    reconstruction: Tensor
    ids: Tensor
    pixel_features: Tensor
    terms: dict[str, Tensor]

    def detached(self) -> PixelForward:
        """The same values without the graph, which is then free."""
        return PixelForward(
            self.target,
            self.reconstruction.detach(),
            self.ids,
            self.pixel_features.detach(),
            {name: value.detach() for name, value in self.terms.items()},
        )
