"""Configuration of the unified multimodal language model (arXiv 2503.06764, section 3.3)."""

from __future__ import annotations

import math
from typing import Any, get_args

from transformers import AutoConfig, PreTrainedConfig

from semhitok.mllm.vocabulary import Vocabulary
from semhitok.storage.configuration_fields import check_choice, check_counts, checked_fields, in_field
from semhitok.types import AdapterKind


class SemHiTokMLLMConfig(PreTrainedConfig):
    """A causal language model, a frozen image tokenizer, and what joins them.

    Args:
        text_config: configuration of the language model (any causal LM that AutoModel knows), or its dict.
        tokenizer_config: configuration of the image tokenizer, or its dict.
        adapter: how visual ids become input embeddings (Table 7): from the ``semantic`` or the ``pixel`` features alone,
            both joined through one MLP (``single``), or each through its own (``dual``, the paper).


        image_positions: whether visual input embeddings also say in which row and column of its image a token is (see
            ``ImagePositions``; not in the paper).
        own_begin_id, own_end_id: the language model's own text ids for begin and end of an image; None adds two control
            ids (see ``Vocabulary``).
        code_head_layers, code_head_width, code_head_heads: sizes of the small autoregressive head over the C codes of a
            token, used only with several codes per token. UniTok's sizes are not published; these are ours.
        image_guidance, image_top_k: settings with which this model generates images where none are given: scale of classifier-free
            guidance, and number of most likely ids to sample from, 0 for all (see ``ImageGenerator``).
        shared_tokenizer, tokenizer_fingerprint: the bundled image tokenizer whose weights are not stored in the checkpoint, and
            its fingerprint; None in a loaded model, which is complete (see ``shared_tokenizer.py``).

    Raises:
        ValueError: a value is out of range, or the parts do not match.
    """

    model_type = "semhitok_mllm"
    sub_configs = {"text_config": AutoConfig, "tokenizer_config": AutoConfig}  # pyright: ignore[reportAssignmentType]

    @checked_fields
    def __init__(
        self,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        tokenizer_config: PreTrainedConfig | dict[str, Any] | None = None,
        adapter: AdapterKind = "dual",
        image_positions: bool = False,
        own_begin_id: int | None = None,
        own_end_id: int | None = None,
        code_head_layers: int = 2,
        code_head_width: int = 512,
        code_head_heads: int = 8,
        image_guidance: float = 3.0,
        image_top_k: int = 0,
        shared_tokenizer: str | None = None,
        tokenizer_fingerprint: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs["tie_word_embeddings"] = False  # the head has rows that the text table does not have
        # First: it sets the attention implementation of all parts to None, those of built models included.
        super().__init__(**kwargs)
        with in_field("text_config"):
            self.text_config = _config(text_config, "qwen2")
        with in_field("tokenizer_config"):
            self.tokenizer_config = _config(tokenizer_config, "semhitok")
        self.adapter: AdapterKind = adapter
        self.image_positions = image_positions
        self.own_begin_id = own_begin_id
        self.own_end_id = own_end_id
        self.code_head_layers = code_head_layers
        self.code_head_width = code_head_width
        self.code_head_heads = code_head_heads
        self.image_guidance = image_guidance
        self.image_top_k = image_top_k
        self.shared_tokenizer = shared_tokenizer
        self.tokenizer_fingerprint = tokenizer_fingerprint
        self._check()

    @property
    def vocabulary(self) -> Vocabulary:
        """The id layout; derived, never stored."""
        tokenizer, size = self.tokenizer_config, self.tokenizer_config.image_size
        return Vocabulary(
            text_size=self.text_config.vocab_size,
            visual_size=tokenizer.vocab_size,
            image_tokens=math.prod(tokenizer.grid(size, size)),
            codes_per_token=getattr(tokenizer, "codes_per_token", 1),
            own_begin_id=self.own_begin_id,
            own_end_id=self.own_end_id,
        )

    @property
    def context_length(self) -> int:
        """Number of positions that the language model supports."""
        return self.text_config.max_position_embeddings

    def _check(self) -> None:
        check_choice("adapter", self.adapter, get_args(AdapterKind))
        check_counts({f"code_head_{name}": getattr(self, f"code_head_{name}") for name in ("layers", "width", "heads")})
        if not (math.isfinite(self.image_guidance) and self.image_guidance > 0 and self.image_top_k >= 0):
            raise ValueError(
                f"image_guidance must be above 0 and image_top_k at least 0, got {self.image_guidance} and {self.image_top_k}"
            )
        if self.code_head_width % self.code_head_heads:
            raise ValueError(
                f"code_head_width {self.code_head_width} must be a multiple of code_head_heads {self.code_head_heads}"
            )
        for name, kind in (("stages", list), ("provenance", dict)):  # written by training, absent before
            if not isinstance(getattr(self, name, kind()), kind):
                raise ValueError(f"{name} must be a {kind.__name__}, got {getattr(self, name)!r}")
        reason = getattr(self.tokenizer_config, "place_dependence", None)
        if reason and self.adapter != "semantic":  # semantic codes depend on the id alone
            raise ValueError(
                f"a tokenizer with {reason} cannot be used with a language model: its features depend on the position "
                "in the image, not only on the id (with adapter semantic it can, which does not read them)"
            )
        self.vocabulary  # noqa: B018  raises if the parts do not match


def _config(given: PreTrainedConfig | dict[str, Any] | None, default: str) -> PreTrainedConfig:
    if isinstance(given, PreTrainedConfig):
        return given
    fields = dict(given or {})
    return AutoConfig.for_model(fields.pop("model_type", default), **fields)
