"""AdamW for an embedding table, of which a batch sees few rows.

A row that never had a gradient has no moments, and without weight decay AdamW does not move it. So only the rows that
ever had one are gone through; the others are as they were, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import overload

import torch
from torch import Tensor, nn

from .. import kernels
from ..model import EmbeddingModel
from ..modules.encoder import Encoder
from ..modules.layers import Embedding


class TableAdamW(torch.optim.Optimizer):
    """AdamW without weight decay for one table whose gradients are sparse: (rows, dim), float32, on the CPU.

    Its numbers are those of torch's AdamW over the whole table.
    """

    def __init__(self, table: nn.Parameter, *, lr: float, betas: tuple[float, float], eps: float) -> None:
        # Row numbers stand with the settings: state would be turned into the table's type when it is loaded.
        super().__init__(
            [table], {"lr": lr, "betas": betas, "eps": eps, "step": 0, "rows": torch.empty(0, dtype=torch.int64)}
        )
        self.state[table] = {"exp_avg": torch.zeros_like(table), "exp_avg_sq": torch.zeros_like(table)}

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Go one step; the table's gradient is sparse and coalesced."""
        (group,) = self.param_groups
        (table,) = group["params"]
        state = self.state[table]
        if table.grad is None:
            return None
        seen, slopes = table.grad.indices()[0], table.grad.values()  # (seen,), (seen, dim)
        group["step"] += 1
        rows = group["rows"] = _union(group["rows"], seen, len(table))
        gradient = torch.zeros(len(rows), table.shape[1])
        gradient[torch.searchsorted(rows, seen)] = slopes
        kernels.adamw_rows_(
            table.data,
            gradient,
            state["exp_avg"],
            state["exp_avg_sq"],
            rows,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            eps=group["eps"],
            step=group["step"],
        )
        return None


def _union(rows: Tensor, more: Tensor, size: int) -> Tensor:
    """Rising row numbers that are in either."""
    among = torch.zeros(size, dtype=torch.bool)
    among[rows] = True
    if bool(among[more].all()):
        return rows
    among[more] = True
    return among.nonzero()[:, 0]


def clip(parameters: list[nn.Parameter], limit: float) -> Tensor:
    """Scale gradients down to a total norm of at most `limit`; sparse ones are coalesced. Returns the norm before."""
    values: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            values.append(parameter.grad._values())
        else:
            values.append(parameter.grad)
    norm: Tensor = torch.nn.utils.get_total_norm(values)
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(values, factor)
    return norm


@contextmanager
def sparse_gradients(table: Embedding | None) -> Iterator[None]:
    """Let the gradients of a table hold only the rows that were looked up, for a block of code."""
    if table is not None:
        table.sparse = True
    try:
        yield
    finally:
        if table is not None:
            table.sparse = False


def word_table(model: EmbeddingModel) -> Embedding | None:
    """The word embeddings, where few of their rows have a gradient at a step and that can be made use of."""
    encoder = model.transformer.auto_model
    if not isinstance(encoder, Encoder) or model.device.type != "cpu" or model.dtype != torch.float32:
        return None
    return encoder.embeddings.word if encoder.embeddings.word.weight.requires_grad else None
