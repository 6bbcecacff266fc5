"""AdamW and Muon with warm-up and cosine decay, and the choice of parameters with weight decay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


class MuonWithAdamW:
    """Muon (Jordan et al., 2024) for some matrices, AdamW for all other parameters; one schedule for both.

    Muon's updates are orthogonal matrices, here of the size that AdamW's have (Liu et al., 2025, arXiv 2502.16982), so that rate and
    weight decay mean the same for both.

    Args:
        modules: the trained modules.
        matrices: the parameters of them that Muon takes, with two axes: weights of linear layers between others.
        config: see ``OptimizerConfig``; Muon's momentum is 0.95.

    Raises:
        ValueError: there is no matrix.
    """

    def __init__(
        self, modules: nn.Module | Sequence[nn.Module], matrices: Sequence[nn.Parameter], config: OptimizerConfig
    ) -> None:
        if not matrices:
            raise ValueError("Muon has nothing to train: there is no matrix for it")
        self.adamw, taken = build_adamw(modules, config), set(matrices)
        for group in self.adamw.param_groups:
            group["params"] = [each for each in group["params"] if each not in taken]
        self.muon = torch.optim.Muon(
            matrices, lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both."""
        return [*self.muon.param_groups, *self.adamw.param_groups]

    def step(self) -> None:
        """One step of both."""
        self.muon.step()
        self.adamw.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients."""
        self.muon.zero_grad(set_to_none)
        self.adamw.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])


Optimizer = torch.optim.AdamW | MuonWithAdamW


def initialise_states(optimizer: Optimizer) -> None:
    """Create the moments that the first step would create, so that a checkpoint can be read into them.

    A step after it equals one without it, bit for bit; and what does not fit into memory is found before the first step.
    """
    if isinstance(optimizer, MuonWithAdamW):
        for parameter in (each for group in optimizer.muon.param_groups for each in group["params"]):
            state = optimizer.muon.state[parameter]
            state.setdefault("momentum_buffer", torch.zeros_like(parameter, memory_format=torch.preserve_format))
        optimizer = optimizer.adamw
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)


def take_step(
    optimizer: torch.optim.Optimizer | MuonWithAdamW, config: OptimizerConfig, step: int, total_steps: int
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
