"""AdamW with warm-up and cosine decay, and the choice of parameters with weight decay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semhitok.distributed import whole_tensor
from semhitok.quantizers import Quantizer


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule.

    Attributes:
        learning_rate: peak rate, at the end of the warm-up.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        weight_decay: decoupled, for matrices and convolutions only (see ``parameter_groups``).
        warmup_steps: linear warm-up in optimizer steps; at most a tenth of the run.
        final_ratio: learning rate at the last step as a fraction of ``learning_rate``; 1 keeps it constant.
        clip_norm: maximum global gradient norm; None disables clipping.
    """

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.05
    warmup_steps: int = 1000
    final_ratio: float = 0.1
    clip_norm: float | None = 1.0


def learning_rate(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """The learning rate of the step that follows ``step`` completed ones.

    Rises linearly to ``config.learning_rate`` at step ``warmup_steps - 1``, then falls along half a cosine to
    ``final_ratio`` of it at ``total_steps``. The warm-up is capped at a tenth of the run, so that a short trial run of a
    recipe made for long ones still reaches its peak rate.
    """
    warmup = min(config.warmup_steps, total_steps // 10)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * (config.final_ratio + (1 - config.final_ratio) * cosine)


def parameter_groups(*modules: nn.Module, weight_decay: float) -> list[dict]:
    """Trainable parameters in two groups, with and without weight decay.

    Weight decay is not applied to vectors (biases, norms, scales, class and mask tokens: at most one axis longer than
    1), to tables of ``nn.Embedding``, to the codebooks of a quantizer (``Quantizer.codebooks``), whose unused codes
    would shrink to zero, and to parameters listed in a module's attribute ``no_weight_decay``.
    """
    decayed: dict[nn.Parameter, None] = {}
    plain: dict[nn.Parameter, None] = {}
    for module in modules:
        declared = {id(tensor) for child in module.modules() for tensor in _undecayed(child)}
        for parameter in module.parameters():
            if not parameter.requires_grad:
                continue
            is_vector = sum(size > 1 for size in parameter.shape) <= 1
            (plain if is_vector or id(parameter) in declared else decayed)[parameter] = None
    groups = [
        {"params": list(decayed), "weight_decay": weight_decay},
        {"params": [parameter for parameter in plain if parameter not in decayed], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _undecayed(module: nn.Module) -> list[Tensor]:
    """The module's own parameters that it exempts from weight decay, whatever their shape."""
    names = ("weight",) if isinstance(module, nn.Embedding) else getattr(module, "no_weight_decay", ())
    names = module.codebooks if isinstance(module, Quantizer) else names
    return [getattr(module, name) for name in names]


def build_adamw(modules: nn.Module | Sequence[nn.Module], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of the modules; ``take_step`` sets the learning rate at each step.

    Raises:
        ValueError: nothing is trainable.
    """
    modules = [modules] if isinstance(modules, nn.Module) else modules
    groups = parameter_groups(*modules, weight_decay=config.weight_decay)
    if not groups:
        raise ValueError("nothing to train: every parameter of the given modules is frozen")
    # One fused kernel replaces dozens of small ones per parameter, which took a third of a small model's step on CPU.
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def initialise_states(optimizer: torch.optim.AdamW) -> None:
    """Create the moments that the first step would create, so that a checkpoint can be read into them.

    A step after it equals one without it, bit for bit; and what does not fit into memory is found before the first step.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)


def take_step(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, step: int, total_steps: int
) -> dict[str, float | Tensor]:
    """Finish an optimizer step: clip, set the learning rate, update, clear gradients.

    Gradients are those of the whole batch by now (``distributed.averaged_gradients``).

    Args:
        step: optimizer steps done before this one.
        total_steps: length of the schedule.

    Returns:
        ``learning_rate`` and ``gradient_norm`` (before clipping; 0-d tensor) for the log.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = whole_tensor(nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None]))
    nn.utils.clip_grads_with_norm_(parameters, math.inf if config.clip_norm is None else config.clip_norm, norm)
    rate = learning_rate(step, total_steps, config)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"learning_rate": rate, "gradient_norm": norm}
