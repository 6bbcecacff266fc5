"""Configuration of the unified language model's training (paper section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from semhitok.training.optim import OptimizerConfig
from semhitok.types import Precision

Trained = Literal["all", "lora", "adapter"]
PackedAttention = Literal["auto", "sequences", "masked"]


@dataclass(frozen=True)
class LanguageConfig:
    """What is trained, and how.

    Attributes:
        optimizer: AdamW and its schedule.
        muon: the matrices of the language model's layers are trained by Muon, all else by AdamW, with the settings of ``optimizer``:
            a small language model from scratch then learns what it would not learn in many times the steps.
        trained: ``all`` trains everything but the image tokenizer; ``lora`` low-rank updates of the language model's layers
            together with adapter, head and control rows, with the text embeddings frozen; ``adapter`` only the adapter
            (LLaVA-v1.5's first stage).
        lora_rank, lora_alpha: used with ``lora`` only.
        image_weight: weight of a visual label in the loss; a text label has 1. 1 gives the paper's single loss, in which the 64
            or more tokens of a generated image outweigh the two of an answer; small models learn to answer sooner with less.
        head_from_embeddings: whether stage ``align`` sets the head's visual rows to the directions of the visual embeddings even
            if it keeps the text embeddings, as for a language model that has learned words but no images.
        share_head: while they are trained, the head's visual rows share what ids with the same semantic code or similar codes have in
            common (see ``shared_head.py``); the saved head is an ordinary one.
        chunk_tokens: number of tokens whose logits are held in memory at a time; None for 128 on a CPU, and for 1,024 to 4,096
            on a GPU, as many as take at most 2 GiB.
        attention: how the sequences of a packed row are kept apart: ``sequences`` takes them out of their rows, which saves the
            products between them; ``masked`` multiplies whole rows under a mask; ``auto`` is ``sequences`` on a GPU unless
            layers are compiled (whose shapes would change in every step) or have a sliding window, and ``masked`` on a CPU, where
            it depends on the lengths which is faster.
        checkpoint_activations: recompute the layers' activations in the backward pass to save memory.
        precision: ``bf16`` autocast or ``fp32``.
    """

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    muon: bool = False
    trained: Trained = "all"
    lora_rank: int = 16
    lora_alpha: float = 32.0
    image_weight: float = 1.0
    head_from_embeddings: bool = False
    share_head: bool = False
    chunk_tokens: int | None = None
    attention: PackedAttention = "auto"
    checkpoint_activations: bool = False
    precision: Precision = "bf16"

    def __post_init__(self) -> None:
        if self.lora_rank < 1 or (self.chunk_tokens is not None and self.chunk_tokens < 1):
            raise ValueError(
                f"lora_rank and chunk_tokens must be at least 1, got {self.lora_rank} and {self.chunk_tokens}"
            )
        if self.muon and self.trained != "all":
            raise ValueError(f"muon trains whole matrices: it goes with trained all, got {self.trained}")
        if self.share_head and self.trained == "adapter":
            raise ValueError("share_head trains the head: it goes with trained all or lora, got adapter")
        if not self.image_weight > 0:
            raise ValueError(f"image_weight must be above 0, got {self.image_weight}; a mix without images needs none")
