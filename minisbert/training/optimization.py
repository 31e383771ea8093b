"""Optimizers of a run: parameter groups, their AdamW, the sparse gradients of the word table, clipping."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..distributed import largest, sum_in_buckets, sum_sparse, world_size
from ..model import EmbeddingModel
from ..modules.layers import Embedding
from .adamw import AdamW, EmbeddingAdamW, Optimizer

BETAS, EPS = (0.9, 0.999), 1e-8


def adamw(
    model: nn.Module,
    losses: Sequence[nn.Module],
    *,
    learning_rate: float,
    weight_decay: float,
    own_rates: Mapping[nn.Parameter, float] | None = None,
    word_table: Embedding | None = None,
    capturable: bool = False,
    betas: tuple[float, float] = BETAS,
    eps: float = EPS,
) -> list[Optimizer]:
    """Make AdamW over the parameters of model and losses; biases and normalization weights are not decayed.

    Args:
        model: the model to train.
        losses: the losses; they may have parameters too.
        learning_rate: rate of the first step.
        weight_decay: see above.
        own_rates: parameters with another highest rate; it is the entry "highest" of their group.
        word_table: word embeddings that get an `EmbeddingAdamW` of their own; only without decay.
        capturable: keep the learning rate on the device of the parameters, so that a CUDA graph can capture a step.
        betas: decay of the two moments.
        eps: added to the denominator.
    """
    table = None if word_table is None else word_table.weight
    groups = parameter_groups(
        (
            (parameter, not isinstance(owner, nn.LayerNorm) and "bias" not in name)
            for name, parameter, owner in owned_parameters(model, *losses)
            if parameter is not table
        ),
        weight_decay=weight_decay,
        own_rates=own_rates,
    )
    device = next(model.parameters()).device
    optimizer = adamw_over(
        groups, device=device, learning_rate=learning_rate, betas=betas, eps=eps, capturable=capturable
    )
    if word_table is None:
        return [optimizer]
    sparse = EmbeddingAdamW(word_table, lr=learning_rate, betas=betas, eps=eps)
    own = (own_rates or {}).get(cast(nn.Parameter, word_table.weight))
    if own is not None:
        sparse.param_groups[0]["highest"] = own
    return [optimizer, sparse]


def adamw_over(
    groups: list[dict[str, Any]],
    *,
    device: torch.device,
    learning_rate: float,
    betas: tuple[float, float] = BETAS,
    eps: float = EPS,
    capturable: bool = False,
) -> Optimizer:
    """Make AdamW over groups of parameters on one device; the arguments are those of `adamw`."""
    if device.type == "cpu" and not capturable:
        return AdamW(groups, lr=learning_rate, betas=betas, eps=eps)
    rate = torch.tensor(learning_rate, device=device) if capturable else learning_rate
    return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=eps, fused=True, capturable=capturable)


def parameter_groups(
    parameters: Iterable[tuple[nn.Parameter, bool]],
    *,
    weight_decay: float,
    own_rates: Mapping[nn.Parameter, float] | None = None,
) -> list[dict[str, Any]]:
    """Sort pairs of a parameter and whether it is decayed into the groups of an optimizer.

    The first two are those with and without decay; two more follow for each learning rate in `own_rates`.
    """
    rates = own_rates or {}
    groups: dict[tuple[float | None, bool], dict[str, Any]] = {
        (rate, decayed): {"params": [], "weight_decay": weight_decay if decayed else 0.0}
        for rate in (None, *dict.fromkeys(rates.values()))
        for decayed in (True, False)
    }
    for (rate, _), group in groups.items():
        if rate is not None:
            group["highest"] = rate
    for parameter, decayed in parameters:
        groups[rates.get(parameter), decayed]["params"].append(parameter)
    return list(groups.values())


def owned_parameters(*roots: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Yield every parameter once, with its full name and the module that owns it."""
    seen: set[nn.Parameter] = set()
    for root in roots:
        for prefix, module in root.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter not in seen:
                    seen.add(parameter)
                    yield f"{prefix}.{name}" if prefix else name, parameter, module


def sparse_word_table(model: EmbeddingModel) -> Embedding | None:
    """Return the word embeddings if `EmbeddingAdamW` can train them: float32, on the CPU, not frozen."""
    encoder = model.transformer.encoder
    table = encoder.get_input_embeddings()
    if not isinstance(table, Embedding) or model.device.type != "cpu" or model.dtype != torch.float32:
        return None
    return table if table.weight.requires_grad else None


@contextmanager
def sparse_gradients(optimizers: Iterable[Optimizer]) -> Iterator[None]:
    """Make the gradients of the tables of every `EmbeddingAdamW` sparse for a block of code."""
    tables = [optimizer.embedding for optimizer in optimizers if isinstance(optimizer, EmbeddingAdamW)]
    for table in tables:
        table.sparse = True
    try:
        yield
    finally:
        for table in tables:
            table.sparse = False


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients down to a total norm of at most `max_norm`; sparse ones are coalesced.

    Returns:
        The norm before, ().
    """
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
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    if factor.device.type != "cpu" or factor != 1:  # a GPU would have to be waited for
        torch._foreach_mul_(values, factor)
    return norm


@torch.no_grad()
def sum_gradients(parameters: Sequence[nn.Parameter], loss: Tensor, *, all_dense: bool) -> Tensor:
    """Add up the gradients of parameters over all processes, and a loss, (); return its sum.

    Args:
        parameters: the same in all processes; a process may lack gradients that others have.
        loss: of this process.
        all_dense: every parameter has a dense gradient in every process, so that they need not agree on that.
    """
    if world_size() == 1:
        return loss
    kinds = [1 if one.grad is None else 2 if one.grad.is_sparse else 3 for one in parameters]
    if not all_dense:
        kinds = largest(torch.tensor(kinds, device=loss.device)).tolist()
    sums = [loss.to(parameters[0].dtype)]
    for parameter, kind in zip(parameters, kinds, strict=True):
        if kind == 2:
            parameter.grad = sum_sparse(_no_rows_of(parameter) if parameter.grad is None else parameter.grad)
        elif kind == 3:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()
            sums.append(parameter.grad)
    sum_in_buckets(sums)
    return sums[0]


def _no_rows_of(table: Tensor) -> Tensor:
    """Return a sparse gradient of a table, (rows, dim), without entries."""
    return torch.sparse_coo_tensor(
        torch.empty(1, 0, dtype=torch.int64), table.new_empty(0, *table.shape[1:]), table.shape, check_invariants=False
    )


def merge_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Coalesce sparse gradients that have more entries than their parameter has rows.

    Each backward adds its entries to them, so that many before an update would take much memory.
    """
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse and parameter.grad._nnz() > len(parameter):
            parameter.grad = parameter.grad.coalesce()


def check_moments(optimizer: Optimizer) -> None:
    """Check that loaded moments have the shapes and dtypes of their parameters; the kernels do not check them.

    Raises:
        ValueError: one has another shape or dtype.
    """
    for parameter, state in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            if state[name].shape != parameter.shape or state[name].dtype != parameter.dtype:
                raise ValueError(f"{name} of shape {tuple(state[name].shape)} for {tuple(parameter.shape)}")
