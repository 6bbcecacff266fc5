"""Low-rank adaptation of the language model's layers, through ``peft`` (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_PREFIX, _BASE = "lora_", ".base_layer"


def add_lora(language_model: nn.Module, *, rank: int, alpha: float) -> None:
    """Add a low-rank update, zero at first, to every attention and feed-forward matrix of the layers, and freeze the rest.

    Args:
        language_model: changed in place.
        rank: of the update.
        alpha: the update is scaled by alpha / rank.

    Raises:
        ValueError: peft is not installed, or the language model's matrices have other names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("LoRA needs peft: pip install semhitok[mllm]") from error
    found = {
        name.rpartition(".")[2] for name, module in language_model.named_modules() if isinstance(module, nn.Linear)
    }
    targets = [name for name in TARGETS if name in found]
    if not targets:
        raise ValueError(f"LoRA looks for matrices named {', '.join(TARGETS)}, the language model has {sorted(found)}")
    # peft annotates an int, but any number works.
    scale: Any = alpha
    config = LoraConfig(r=rank, lora_alpha=scale, target_modules=targets, lora_dropout=0.0)
    inject_adapter_in_model(config, language_model)


def merged_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The state dict of an equivalent model without LoRA, tensor by tensor; the model itself is left unchanged."""
    state: dict[str, Tensor] = model.state_dict()
    layers: dict[str, Any] = {
        name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")
    }
    for name, tensor in state.items():
        if _PREFIX in name:
            continue
        owner, _, base = name.partition(_BASE)
        if base == ".weight" and owner in layers:
            layer = layers[owner]
            for adapter in layer.active_adapters:
                tensor = tensor + layer.get_delta_weight(adapter).to(tensor.dtype)
        yield name.replace(_BASE, ""), tensor
