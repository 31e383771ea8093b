"""AdamW with the reference's parameter groups, and its linear schedule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .tables import TableAdamW

_BETAS, _EPS = (0.9, 0.999), 1e-8


class LinearSchedule(NamedTuple):
    """Learning rate by optimizer steps done: up to `highest` over `warmup` steps, and down to 0 at `total`."""

    highest: float
    warmup: int
    total: int

    def rate(self, done: int) -> float:
        """The learning rate after so many steps."""
        if done < self.warmup:
            return self.highest * (done / max(1, self.warmup))
        return self.highest * max(0.0, (self.total - done) / max(1, self.total - self.warmup))

    def rate_on_device(self, done: Tensor) -> Tensor:
        """`rate` of a number, float64, that only the device knows."""
        falling = ((self.total - done) / max(1, self.total - self.warmup)).clamp(min=0)
        return self.highest * torch.where(done < self.warmup, done / max(1, self.warmup), falling)


def adamw(
    model: nn.Module,
    losses: Sequence[nn.Module],
    *,
    learning_rate: float,
    weight_decay: float,
    table: nn.Parameter | None = None,
    on_device: bool = False,
) -> list[torch.optim.Optimizer]:
    """AdamW over the parameters of model and losses; biases and normalization weights are not decayed.

    Args:
        model: what is trained.
        losses: those that train it; they may have parameters too.
        learning_rate: of the first step.
        weight_decay: see above.
        table: word embeddings with sparse gradients, to be given an optimizer of their own; only without decay.
        on_device: keep the learning rate, too, where the parameters are, so that a step may be recorded.
    """
    groups = parameter_groups(
        (
            (parameter, not isinstance(owner, nn.LayerNorm) and "bias" not in name)
            for name, parameter, owner in owned_parameters(model, *losses)
            if parameter is not table
        ),
        weight_decay=weight_decay,
    )
    device = groups[1]["params"][0].device
    rate = torch.tensor(learning_rate, device=device) if on_device else learning_rate
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=_BETAS, eps=_EPS, fused=True, capturable=on_device)
    return [optimizer] if table is None else [optimizer, TableAdamW(table, lr=learning_rate, betas=_BETAS, eps=_EPS)]


def check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Hold what an optimizer has read to the shapes of its parameters, which its kernels take on trust.

    Raises:
        ValueError: one has another shape, or type.
    """
    for parameter, state in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            if state[name].shape != parameter.shape or state[name].dtype != parameter.dtype:
                raise ValueError(f"{name} of shape {tuple(state[name].shape)} for {tuple(parameter.shape)}")


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
