"""Configuration of the SemHiTok tokenizer (arXiv 2503.06764)."""

from __future__ import annotations

from typing import Any, Literal, get_args

from transformers import PreTrainedConfig

from semhitok.quantizers import ONE_CODE_PER_TOKEN
from semhitok.quantizers.ema import UpdateRule
from semhitok.quantizers.grouping import PixelCodebookKind
from semhitok.quantizers.layout import IdLayout
from semhitok.storage.configuration_fields import check_choice, check_counts, checked_fields, in_field
from semhitok.teachers import TeacherConfig
from semhitok.tokenizers.token_grid import TokenGrid

ConcatKind = Literal["dim", "length", "none", "semantic"]


class SemHiTokConfig(PreTrainedConfig, TokenGrid):
    """Architecture of a SemHiTok tokenizer; the defaults are those of the paper's 256 px model, if stated.

    Args:
        teacher_config: the frozen text-aligned encoder (its own image size, layer and normalisation).
        image_size: side in pixels of the images that ``encode`` expects; other sizes work, see ``SemHiTokModel``.
        patch_size: side in pixels of one token. image_size need not be a multiple: the grid is rounded down and the
            pixel branch sees the whole image resampled to the grid (384 px with patch 14: 27 x 27 tokens, 378 px).
        semantic_codebook_size: K, semantic codes (paper: 16,384).
        semantic_dim: d_s, channels of a semantic code (paper: 48).
        semantic_quantizer: ``ema`` (paper), ``vanilla`` or ``normalized`` (Table 10); any of
            ``quantizers.ONE_CODE_PER_TOKEN``.
        semantic_decay: momentum of the EMA codebook (eq. 4; value not given, 0.99 is ours).
        semantic_update_rule: ``sum_count`` keeps running counts and sums; ``batch_mean`` is literally eq. 4.
        semantic_decoder_layers: self-attention layers that reconstruct the teacher's features (paper: 3).
        semantic_decoder_heads: heads of these layers (not given).
        subcodebook_size: m, pixel codes per semantic code. The text says 8, the vocabulary size 196,608 and Table 9 say
            12; the vocabulary size is always K * m.
        subcodebook_sizes: m_k, one for each semantic code; the vocabulary size is then their sum, and
            ``subcodebook_size`` is set to the largest. None for the same m everywhere (paper).
            ``quantizers.allotment`` finds good sizes.
        pixel_codebook: how the sub-codebook is selected: by the ``semantic`` code (paper), or as in the controls of
            ``quantizers.grouping`` at equal bits: one codebook ``shared`` by all, a ``random`` choice, or one for each
            group of semantic codes (``grouped``).
        semantic_groups: the group of each semantic code, for ``grouped``, numbered from 0.
        pixel_dim: d_p, channels of a pixel code (not given; 16 is ours).
        concat: how the decoder receives the two codes (Table 9): ``dim`` joins channels (paper), ``length`` joins the
            two sequences, ``none`` uses only the pixel code (the semantic code still selects the sub-codebook), and
            ``semantic`` only the semantic code (Table 7's first row), which requires m = 1, so that V = K.
        encoder_layers, encoder_width, encoder_heads: pixel encoder (paper: ViT-Base).
        decoder_layers, decoder_width, decoder_heads: pixel decoder (paper: ViT-Base, then ViT-Large in stage 3).
        refine_channels: channels of the convolutional refinement after the decoder; 0 is a plain linear head.
        encoder: False for a model that only decodes and embeds ids, without teacher and pixel encoder.
        stages: finished training stages in order; written by training.
        provenance: licence, training data and recipe of the weights; written by training, shown by ``inspect``.

    Raises:
        ValueError: a value is out of range, or two values contradict each other.
    """

    model_type = "semhitok"
    sub_configs = {"teacher_config": TeacherConfig}  # pyright: ignore[reportAssignmentType]
    codes_per_token = 1  # an id holds the semantic and the pixel code

    @checked_fields
    def __init__(
        self,
        teacher_config: TeacherConfig | dict[str, Any] | None = None,
        image_size: int = 256,
        patch_size: int = 16,
        semantic_codebook_size: int = 16_384,
        semantic_dim: int = 48,
        semantic_quantizer: str = "ema",
        semantic_decay: float = 0.99,
        semantic_update_rule: UpdateRule = "sum_count",
        semantic_decoder_layers: int = 3,
        semantic_decoder_heads: int = 16,
        subcodebook_size: int = 12,
        subcodebook_sizes: list[int] | None = None,
        pixel_codebook: PixelCodebookKind = "semantic",
        semantic_groups: list[int] | None = None,
        pixel_dim: int = 16,
        concat: ConcatKind = "dim",
        encoder_layers: int = 12,
        encoder_width: int = 768,
        encoder_heads: int = 12,
        decoder_layers: int = 12,
        decoder_width: int = 768,
        decoder_heads: int = 12,
        refine_channels: int = 0,
        encoder: bool = True,
        stages: list[str] | None = None,
        provenance: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(teacher_config, dict):
            with in_field("teacher_config"):
                teacher_config = TeacherConfig(**teacher_config)
        self.teacher_config = teacher_config if teacher_config is not None else TeacherConfig()
        self.image_size = image_size
        self.patch_size = patch_size
        self.semantic_codebook_size = semantic_codebook_size
        self.semantic_dim = semantic_dim
        self.semantic_quantizer = semantic_quantizer
        self.semantic_decay = semantic_decay
        self.semantic_update_rule: UpdateRule = semantic_update_rule
        self.semantic_decoder_layers = semantic_decoder_layers
        self.semantic_decoder_heads = semantic_decoder_heads
        self.subcodebook_size = max(subcodebook_sizes, default=1) if subcodebook_sizes is not None else subcodebook_size
        self.subcodebook_sizes = list(subcodebook_sizes) if subcodebook_sizes is not None else None
        self.pixel_codebook: PixelCodebookKind = pixel_codebook
        self.semantic_groups = list(semantic_groups) if semantic_groups is not None else None
        self.pixel_dim = pixel_dim
        self.concat: ConcatKind = concat
        self.encoder_layers = encoder_layers
        self.encoder_width = encoder_width
        self.encoder_heads = encoder_heads
        self.decoder_layers = decoder_layers
        self.decoder_width = decoder_width
        self.decoder_heads = decoder_heads
        self.refine_channels = refine_channels
        self.encoder = encoder
        self.stages = list(stages or [])
        self.provenance = dict(provenance or {})
        self._check()
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        """K * m, or the sum of the m_k: the number of joint ids; derived, never stored."""
        if self.subcodebook_sizes is not None:
            return sum(self.subcodebook_sizes)
        return self.semantic_codebook_size * self.subcodebook_size

    @property
    def place_dependence(self) -> str | None:
        """The reason why the embedding of an id depends on its position; None if it does not."""
        return "pixel_codebook random" if self.pixel_codebook == "random" else None

    @property
    def id_layout(self) -> IdLayout:
        """The layout of joint ids by semantic code."""
        sizes = self.subcodebook_sizes
        return IdLayout.of(self.semantic_codebook_size, self.subcodebook_size if sizes is None else sizes)

    def _check(self) -> None:
        sizes = "image_size patch_size semantic_codebook_size semantic_dim subcodebook_size pixel_dim"
        towers = "layers width heads"
        names = sizes.split() + [f"{tower}_{size}" for tower in ("encoder", "decoder") for size in towers.split()]
        names += ["semantic_decoder_layers", "semantic_decoder_heads"]
        check_counts({name: getattr(self, name) for name in names})
        if not isinstance(self.refine_channels, int) or self.refine_channels < 0:
            raise ValueError(f"refine_channels must be a whole number of at least 0, got {self.refine_channels!r}")
        if not 0.0 <= self.semantic_decay < 1.0:
            raise ValueError(f"semantic_decay must lie in [0, 1), got {self.semantic_decay}")
        for name, kinds in (
            ("semantic_quantizer", ONE_CODE_PER_TOKEN),
            ("semantic_update_rule", get_args(UpdateRule)),
            ("concat", get_args(ConcatKind)),
            ("pixel_codebook", get_args(PixelCodebookKind)),
        ):
            check_choice(name, getattr(self, name), kinds)
        if self.subcodebook_sizes is not None:
            self._check_sizes(self.subcodebook_sizes)
        self._check_groups()
        if self.concat == "semantic" and self.subcodebook_size > 1:
            raise ValueError(
                f"concat semantic uses no pixel code, so subcodebook_size must be 1, got {self.subcodebook_size}"
            )
        if self.patch_size > self.image_size:
            raise ValueError(f"patch_size {self.patch_size} is larger than image_size {self.image_size}")
        for tower in ("encoder", "decoder"):
            width, heads = getattr(self, f"{tower}_width"), getattr(self, f"{tower}_heads")
            if width % heads or (width // heads) % 4:
                raise ValueError(
                    f"{tower}_width {width} must split into {tower}_heads {heads} heads of a multiple of 4 channels"
                )

    def _check_groups(self) -> None:
        groups = self.semantic_groups
        if (groups is not None) != (self.pixel_codebook == "grouped"):
            raise ValueError(
                f"semantic_groups and pixel_codebook grouped belong together, got pixel_codebook {self.pixel_codebook} "
                f"{'without' if groups is None else 'with'} groups"
            )
        if groups is None:
            return
        if len(groups) != self.semantic_codebook_size:
            raise ValueError(
                f"semantic_groups must hold the group of each of {self.semantic_codebook_size} semantic codes, got "
                f"{len(groups)}"
            )
        if any(not isinstance(group, int) for group in groups) or set(groups) != set(range(max(groups) + 1)):
            raise ValueError("semantic_groups must number the groups 0, 1, 2, ... without gaps")

    def _check_sizes(self, sizes: list[int]) -> None:
        if len(sizes) != self.semantic_codebook_size:
            raise ValueError(
                f"subcodebook_sizes must hold one size for each of {self.semantic_codebook_size} semantic codes, got "
                f"{len(sizes)}"
            )
        wrong = [size for size in sizes if not isinstance(size, int) or size < 1]
        if wrong:
            raise ValueError(f"subcodebook_sizes must be whole numbers of at least 1, got {wrong[0]!r}")
        if self.pixel_codebook != "semantic":
            raise ValueError(
                f"subcodebook_sizes belong to semantic codes: pixel_codebook must be semantic, got {self.pixel_codebook}"
            )
