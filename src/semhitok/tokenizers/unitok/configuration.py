"""Configuration of the UniTok tokenizer (arXiv 2502.20321)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from transformers import CLIPTextConfig, PreTrainedConfig

from semhitok.quantizers import ONE_CODE_PER_TOKEN, SEVERAL_CODES_PER_TOKEN
from semhitok.storage.configuration_fields import check_choice, check_counts, checked_fields, in_field
from semhitok.tokenizers.token_grid import TokenGrid

ProjectionKind = Literal["attention", "linear", "none"]
STRIDE = 16


class UniTokConfig(PreTrainedConfig, TokenGrid):
    """Architecture of a UniTok tokenizer; the defaults are the released 256 px model.

    Args:
        image_size: side in pixels of the images that ``encode`` expects, a multiple of 16; other multiples work as well.
        stem_width: channels at half the resolution.
        stage_widths: channels of the two convolutional stages and of the transformer (ViTamin-L: 160, 320, 1024).
        stage_depths: blocks of the two convolutional stages of the encoder.
        decoder_stage_depths: blocks of the decoder's two convolutional stages, the inner one first.
        depth: transformer blocks of the encoder, and of the decoder.
        heads: attention heads of these blocks.
        drop_path: fraction of residual branches dropped in training, increasing from 0 to this value over the blocks.
        width: channels of the space in which tokens are quantized.
        num_codebooks: C, codes per token: codebooks of ``multi_codebook``, depths of ``residual``.
        codebook_size: K, codes of one codebook.
        quantizer: ``multi_codebook`` (UniTok), ``residual`` (its baseline), ``none`` for continuous features, or any of
            ``quantizers.ONE_CODE_PER_TOKEN`` with ``num_codebooks`` 1.
        projection: projection to ``width`` and back: ``attention`` (UniTok), ``linear``, or ``none``, which keeps the width
            and requires ``quantizer`` none.
        projection_heads: heads of attention projections; None for channels // ``width``, so that a head is ``width`` wide.
        embed_dim: E, channels of the space shared by images and texts.
        text_config: the text tower, a CLIP text transformer that projects to ``embed_dim``; None for a tokenizer without one.
        encoder: False for a model that only decodes and embeds ids, without encoder and text tower.
        stages: finished training stages in order; written by training.
        provenance: licence, training data and recipe of the weights.

    Raises:
        ValueError: a value is out of range, or two values contradict each other.
    """

    model_type = "unitok"
    sub_configs = {"text_config": CLIPTextConfig}  # pyright: ignore[reportAssignmentType]

    @checked_fields
    def __init__(
        self,
        image_size: int = 256,
        stem_width: int = 160,
        stage_widths: Sequence[int] = (160, 320, 1024),
        stage_depths: Sequence[int] = (2, 4),
        decoder_stage_depths: Sequence[int] = (4, 2),
        depth: int = 31,
        heads: int = 16,
        drop_path: float = 0.1,
        width: int = 64,
        num_codebooks: int = 8,
        codebook_size: int = 4096,
        quantizer: str = "multi_codebook",
        projection: ProjectionKind = "attention",
        projection_heads: int | None = None,
        embed_dim: int = 768,
        text_config: CLIPTextConfig | dict[str, Any] | None = None,
        encoder: bool = True,
        stages: list[str] | None = None,
        provenance: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_size = image_size
        self.stem_width = stem_width
        self.stage_widths = list(stage_widths)
        self.stage_depths = list(stage_depths)
        self.decoder_stage_depths = list(decoder_stage_depths)
        self.depth = depth
        self.heads = heads
        self.drop_path = drop_path
        self.width = width
        self.num_codebooks = num_codebooks
        self.codebook_size = codebook_size
        self.quantizer = quantizer
        self.projection: ProjectionKind = projection
        self.projection_heads = projection_heads
        self.embed_dim = embed_dim
        if isinstance(text_config, dict):
            with in_field("text_config"):
                text_config = CLIPTextConfig(**text_config)
        self.text_config = text_config
        self.encoder = encoder
        self.stages = list(stages or [])
        self.provenance = dict(provenance or {})
        self._check()
        super().__init__(**kwargs)

    @property
    def patch_size(self) -> int:
        """Side in pixels of one token."""
        return STRIDE

    @property
    def channels(self) -> int:
        """Width of the transformer."""
        return self.stage_widths[2]

    @property
    def vocab_size(self) -> int:
        """Codes of one codebook: each of a token's C ids is in [0, vocab_size)."""
        return self.codebook_size

    @property
    def codes_per_token(self) -> int:
        """C."""
        return self.num_codebooks

    def _check(self) -> None:
        for name, length in (("stage_widths", 3), ("stage_depths", 2), ("decoder_stage_depths", 2)):
            if len(getattr(self, name)) != length:
                raise ValueError(f"{name} needs {length} numbers, got {getattr(self, name)}")
        counts = {name: getattr(self, name) for name in ("stem_width", "depth", "heads", "width", "num_codebooks")}
        counts |= {name: getattr(self, name) for name in ("image_size", "codebook_size", "embed_dim")}
        for name in ("stage_widths", "stage_depths", "decoder_stage_depths"):
            counts |= {f"{name}[{index}]": value for index, value in enumerate(getattr(self, name))}
        check_counts(counts)
        check_choice("quantizer", self.quantizer, (*SEVERAL_CODES_PER_TOKEN, *ONE_CODE_PER_TOKEN, "none"))
        check_choice("projection", self.projection, get_args(ProjectionKind))
        if self.quantizer in ONE_CODE_PER_TOKEN and self.num_codebooks != 1:
            raise ValueError(
                f"quantizer {self.quantizer} has one code per token: num_codebooks must be 1, got {self.num_codebooks}"
            )
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must lie in [0, 1), got {self.drop_path}")
        if self.image_size % STRIDE:
            raise ValueError(f"image_size must be a multiple of {STRIDE}, got {self.image_size}")
        if self.channels % self.heads:
            raise ValueError(f"{self.channels} channels do not split into {self.heads} heads")
        if self.projection == "none" and (self.quantizer != "none" or self.width != self.channels):
            raise ValueError(
                f"without a projection features stay {self.channels} wide and are not quantized: set quantizer to none "
                f"and width to {self.channels}, got {self.quantizer} and {self.width}"
            )
        if self.projection == "attention" and (self.channels % self.width or self.width >= self.channels):
            raise ValueError(
                f"attention projects to heads of {self.width} channels, which must divide the transformer's "
                f"{self.channels} and be fewer"
            )
        self._check_projection_heads()
        if self.text_config is not None and self.text_config.projection_dim != self.embed_dim:
            raise ValueError(
                f"images and texts must share one space: text_config has projection_dim "
                f"{self.text_config.projection_dim}, embed_dim is {self.embed_dim}"
            )
        if self.quantizer == "multi_codebook" and self.width % self.num_codebooks:
            raise ValueError(f"{self.width} channels cannot be split into {self.num_codebooks} chunks of equal width")

    def _check_projection_heads(self) -> None:
        heads = self.projection_heads
        if heads is None:
            return
        if self.projection != "attention":
            raise ValueError(f"projection_heads belong to projection attention, got {heads} with {self.projection}")
        if not isinstance(heads, int) or heads < 1 or self.channels % (heads * self.width):
            raise ValueError(
                f"projection_heads must divide {self.channels} channels // width {self.width} = "
                f"{self.channels // self.width}, got {heads!r}"
            )
