"""AdamW with the reference's parameter groups, and its linear schedule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn


def linear_schedule(step: int, *, warmup: int, total: int) -> float:
    """Factor of the learning rate at optimizer step `step`, counted from 0: up to 1 over `warmup`, down to 0."""
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


def adamw(
    model: nn.Module, losses: Sequence[nn.Module], *, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW over the parameters of model and losses; biases and normalization weights are not decayed."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter, owner in owned_parameters(model, *losses):
        plain = isinstance(owner, nn.LayerNorm) or "bias" in name
        (others if plain else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True)


def owned_parameters(*roots: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Every parameter once, with its full name and the module that owns it."""
    seen: set[nn.Parameter] = set()
    for root in roots:
        for prefix, module in root.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter not in seen:
                    seen.add(parameter)
                    yield f"{prefix}.{name}" if prefix else name, parameter, module
