"""Which parts of a unified model stay as they are when transformers loads it in 8 or 4 bits.

Only the language model's layers are quantized. Rounding the image tokenizer would change ids, and adapter and heads are small or,
like the head of any language model, left out by transformers itself.
"""

from __future__ import annotations

import copy
from typing import Any

NOT_QUANTIZED = ("image_tokenizer", "adapter", "image_positions", "controls", "lm_head", "code_head")
# How the configurations of transformers name the modules to leave out: bitsandbytes, HQQ, and all others.
_FIELDS = ("llm_int8_skip_modules", "skip_modules", "modules_to_not_convert")


def leave_parts_out(quantization_config: Any) -> Any:
    """A copy of a quantization configuration of transformers that also leaves out ``NOT_QUANTIZED``.

    Args:
        quantization_config: as in ``from_pretrained``: a configuration or its dict; None stays None.

    Raises:
        ValueError: this kind of quantization cannot leave modules out.
    """
    if quantization_config is None:
        return None
    if isinstance(quantization_config, dict):
        from transformers.quantizers.auto import AutoQuantizationConfig

        quantization_config = AutoQuantizationConfig.from_dict(dict(quantization_config))
    changed = copy.deepcopy(quantization_config)
    field = next((name for name in _FIELDS if hasattr(changed, name)), None)
    if field is None:
        raise ValueError(
            f"{type(changed).__name__} cannot leave modules out, but the image tokenizer must not be quantized: use another "
            "quantization, such as BitsAndBytesConfig"
        )
    setattr(changed, field, sorted({*NOT_QUANTIZED, *(getattr(changed, field) or ())}))
    return changed
