"""AdamW with the reference's parameter groups, and its linear schedule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

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
    groups = parameter_groups(
        (
            (parameter, not isinstance(owner, nn.LayerNorm) and "bias" not in name)
            for name, parameter, owner in owned_parameters(model, *losses)
        ),
        weight_decay=weight_decay,
    )
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True)


def parameter_groups(parameters: Iterable[tuple[nn.Parameter, bool]], *, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimizer, from each parameter and whether it is decayed."""
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": weight_decay},
        {"params": [], "weight_decay": 0.0},
    ]
    for parameter, decayed in parameters:
        groups[0 if decayed else 1]["params"].append(parameter)
    return groups


def owned_parameters(*roots: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Every parameter once, with its full name and the module that owns it."""
    seen: set[nn.Parameter] = set()
    for root in roots:
        for prefix, module in root.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter not in seen:
                    seen.add(parameter)
                    yield f"{prefix}.{name}" if prefix else name, parameter, module
