"""Values shared between packages. The module imports nothing heavy, so that ``semhitok --help`` starts at once.

Shapes: B images, N tokens (patches), C codes per token, D feature channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

FitMode = Literal["crop", "resize"]
"""How images are made square: by cropping the centre, or by squeezing."""

FitOrTile = Literal["crop", "resize", "tile"]
"""As ``FitMode``, or by splitting into squares at the original resolution."""

PromptLayout = Literal["plain", "geneval", "mjhq", "genai-bench"]
"""Benchmarks of text-to-image generation, see ``evaluation.text_to_image.prompt_sets``."""

SceneSplit = Literal["train", "heldout", "shared", "scenes-100", "scenes-100-shared", "scenes-100-test"]
"""Splits of composed scenes, see ``scenes.splits``."""

SceneGround = Literal["photograph", "plain", "mixed"]
"""What lies behind the objects of composed scenes, see ``scenes.grounds``."""

HeadPrecision = Literal["bfloat16", "float8"]
"""How an export stores a language model's head: two bytes a weight, or one."""

SceneFormat = Literal["webp", "png", "jpg"]
"""How composed scenes are stored."""


@dataclass(frozen=True)
class Quantized:
    """Result of a quantizer.

    Attributes:
        codes: (B,N,D) quantized features; gradients pass straight through to the quantizer's input.
        ids: (B,N) int64 index of the chosen code; (B,N,C) if a token has several.
        losses: the quantizer's own terms, unweighted, by name (``codebook``, ``commitment``); scalars.
    """

    codes: Tensor
    ids: Tensor
    losses: dict[str, Tensor]


@dataclass(frozen=True)
class Encoded:
    """Images as tokens.

    Attributes:
        ids: (B,N) int64 joint ids in [0, vocab_size); (B,N,C) for tokenizers with several codes per token.
        grid: rows and columns of the token grid; rows * columns = N.
        semantic_ids: (B,N) int64 semantic part of each id, if the tokenizer has one.
    """

    ids: Tensor
    grid: tuple[int, int]
    semantic_ids: Tensor | None = None


@dataclass(frozen=True)
class Embedded:
    """Features of token ids, the language model's input.

    Attributes:
        semantic: (B,N,d_s) semantic codes, if the tokenizer has them.
        pixel: (B,N,d_p) pixel codes, l2-normalised in SemHiTok; all codes of a token if semantics and appearance share
            them (UniTok).
    """

    semantic: Tensor | None
    pixel: Tensor


@dataclass(frozen=True)
class TokenizerOutput:
    """Result of a full pass from image to tokens to image, for training.

    Attributes:
        reconstruction: (B,3,H,W), targets in [-1,1], not clamped.
        ids: (B,N) int64 joint ids.
        losses: the quantizer's unweighted terms by name.
        pixel_features: (B,N,d_p) pixel features before quantization, not normalised.
    """

    reconstruction: Tensor
    ids: Tensor
    losses: dict[str, Tensor]
    pixel_features: Tensor


# Training stages and their options.

ShardKind = Literal["none", "full", "hybrid"]
"""How parameters, gradients and optimizer states are divided among ranks, see ``distributed.sharding``."""

Precision = Literal["fp32", "bf16"]
"""Mixed precision of training: ``bf16`` autocast, or none."""

Stage = Literal["semantic", "pixel", "pixel-finetune", "decoder", "joint"]
"""Training stages of SemHiTok. ``joint``, the control, trains ``semantic`` and ``pixel`` in one run."""
STAGES: tuple[Stage, ...] = ("semantic", "pixel", "pixel-finetune", "decoder")
"""The paper's stages, in order."""

UNITOK_STAGE = "unitok"
"""UniTok's only training stage."""

ViTStage = Literal["reconstruction", "understanding"]
"""Training stages of the ViT tokenizers of the comparison; most have the first only."""
VIT_STAGES: tuple[ViTStage, ...] = ("reconstruction", "understanding")

LanguageStageName = Literal["relations", "words", "align", "pretrain", "sft"]
"""Training stages of the unified language model."""
LANGUAGE_STAGES: tuple[LanguageStageName, ...] = ("relations", "words", "align", "pretrain", "sft")

AdapterKind = Literal["semantic", "pixel", "single", "dual"]
"""How visual ids become input embeddings of the language model (Table 7)."""

Learn = Literal["everything", "answers"]
"""What is labelled in a sequence: every position, or only answers, captions and generated images."""
