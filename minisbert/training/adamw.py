"""AdamW on the CPU, with the numbers of `torch.optim.AdamW(fused=True)` and its format of saved states.

The first optimizer of torch's own classes imports torch's compiler, which takes a second and 140 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from .. import kernels


class CpuOptimizer:
    """Base of optimizers on the CPU: parameters in groups with settings, and a state for each parameter.

    Args:
        groups: each with its "params", and settings other than the defaults.
        defaults: settings of all groups.
    """

    def __init__(self, groups: Sequence[Mapping[str, Any]], **defaults: Any) -> None:
        self.param_groups: list[dict[str, Any]] = [{**defaults, **group} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def step(self) -> None:
        """Update the parameters that have a gradient."""
        raise NotImplementedError

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, or fill them with zeros."""
        for parameter in self._parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return states and settings, with parameters as numbers in their order."""
        number: dict[Tensor, int] = {parameter: i for i, parameter in enumerate(self._parameters())}
        groups = [
            {**group, "params": [number[parameter] for parameter in group["params"]]} for group in self.param_groups
        ]
        return {"state": {number[parameter]: state for parameter, state in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned.

        Raises:
            ValueError: the groups have other numbers of parameters.
        """
        saved = state_dict["param_groups"]
        if [len(group["params"]) for group in saved] != [len(group["params"]) for group in self.param_groups]:
            raise ValueError("loaded state dict has other groups of parameters")
        parameters = list(self._parameters())
        numbers = [number for group in saved for number in group["params"]]
        of_number = dict(zip(numbers, parameters, strict=True))
        self.state = {of_number[number]: dict(state) for number, state in state_dict["state"].items()}
        self.param_groups = [
            {**group, **loaded, "params": group["params"]}
            for group, loaded in zip(self.param_groups, saved, strict=True)
        ]

    def _parameters(self) -> Iterator[nn.Parameter]:
        for group in self.param_groups:
            yield from group["params"]


Optimizer: TypeAlias = torch.optim.Optimizer | CpuOptimizer


# What a saved state says besides, so that torch's AdamW goes on from it with the same numbers.
_SETTINGS_OF_TORCH = {
    **{"amsgrad": False, "maximize": False, "foreach": None, "capturable": False},
    **{"differentiable": False, "fused": True, "decoupled_weight_decay": True},
}


class AdamW(CpuOptimizer):
    """AdamW, one operation for all parameters of a group (Loshchilov and Hutter 2019).

    Args:
        groups: parameters, float tensors on the CPU, and the "weight_decay" of each group.
        lr: learning rate.
        betas: decay of the two moments.
        eps: added to the denominator.
    """

    def __init__(
        self, groups: Sequence[Mapping[str, Any]], *, lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, **_SETTINGS_OF_TORCH)

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have a gradient."""
        for group in self.param_groups:
            updated = [parameter for parameter in group["params"] if parameter.grad is not None]
            for _, same in groupby(sorted(updated, key=_dtype), _dtype):
                self._update(list(same), group)

    def _update(self, parameters: list[nn.Parameter], group: Mapping[str, Any]) -> None:
        states = [self.state.get(parameter) or self._start(parameter) for parameter in parameters]
        steps, averages, squares = ([state[name] for state in states] for name in ("step", "exp_avg", "exp_avg_sq"))
        torch._foreach_add_(steps, 1)
        beta1, beta2 = group["betas"]
        torch._fused_adamw_(
            *(cast("list[Tensor]", parameters), [cast(Tensor, parameter.grad) for parameter in parameters]),
            *(averages, squares, [], steps),
            lr=cast(float, group["lr"]),
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def _start(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        return self.state.setdefault(parameter, {"step": torch.zeros(()), **moments})


def _dtype(parameter: nn.Parameter) -> str:
    return str(parameter.dtype)


class EmbeddingAdamW(CpuOptimizer):
    """AdamW without weight decay for an embedding table, of which a batch looks up few rows.

    A row that never had a gradient has no moments, and without decay AdamW does not move it. So only the rows that
    have had one are updated; the numbers are those of torch's AdamW over the whole table.

    Args:
        embedding: the table, (rows, dim), float32, on the CPU; its gradients must be sparse.
        lr: learning rate.
        betas: decay of the two moments.
        eps: added to the denominator.
    """

    def __init__(self, embedding: nn.Embedding, *, lr: float, betas: tuple[float, float], eps: float) -> None:
        table = cast(nn.Parameter, embedding.weight)
        rows = torch.empty(0, dtype=torch.int64)  # that have had a gradient
        super().__init__([{"params": [table]}], lr=lr, betas=betas, eps=eps, step=0, rows=rows)
        self.embedding = embedding
        self.state[table] = {"exp_avg": torch.zeros_like(table), "exp_avg_sq": torch.zeros_like(table)}

    @torch.no_grad()
    def step(self) -> None:
        """Update the rows that have had a gradient; the table's gradient is sparse and coalesced."""
        (group,) = self.param_groups
        (table,) = group["params"]
        if table.grad is None:
            return
        seen, values = table.grad.indices()[0], table.grad.values()  # (seen,), (seen, dim)
        group["step"] += 1
        rows = group["rows"] = _union(group["rows"], seen, len(table))
        gradient = torch.zeros(len(rows), table.shape[1])
        gradient[torch.searchsorted(rows, seen)] = values
        moments = self.state[table]["exp_avg"], self.state[table]["exp_avg_sq"]
        beta1, beta2 = group["betas"]
        settings = kernels.AdamWStep(group["lr"], beta1, beta2, group["eps"], group["step"])
        kernels.adamw_rows_(table.data, gradient, *moments, rows, settings)


def _union(rows: Tensor, more: Tensor, size: int) -> Tensor:
    """Return the ascending row numbers below `size` that are in either tensor."""
    marked = torch.zeros(size, dtype=torch.bool)
    marked[rows] = True
    if bool(marked[more].all()):
        return rows
    marked[more] = True
    return marked.nonzero()[:, 0]
