"""Layer normalization of `dropout(x + x_bias) + residual`: one pass forward, one pass and a short sum backward.

A program takes several whole rows. Backward computes the sum again from x and the residual: that reads as much as a
saved normalized row would take to be written and read, and loses nothing in half precision. A fixed number of programs
walk over the rows and leave one partial gradient of the weights each, so no sum depends on the order in which they run.

Plain definition: `plain.add_norm(x + x_bias, residual, weight, bias)`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from .launch import DTYPES, PARTIALS, check, check_rows, dropout_scale, dropout_seed, launch, load_tile, row_block, tile


def add_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
    dropout: float = 0.0,
    x_bias: Tensor | None = None,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`layer_norm(dropout(x + x_bias) + residual)`: (tokens, dim) each.

    Args:
        x: (tokens, dim), float32, float16 or bfloat16.
        residual: like x, or in float32.
        weight: (dim,).
        bias: (dim,).
        eps: added to the variance.
        dropout: probability of dropping an element of `x + x_bias`.
        x_bias: (dim,), the bias of the linear layer that gave x without it.
        seed: int64, one element, on the device; drawn by default.

    Returns:
        The rows in the dtype of the residual, and in that of x: one tensor where these are the same.

    Raises:
        ConfigError: a shape or dtype is unsupported.
    """
    check_rows("x", x)
    if residual is not None:
        check("residual", residual, tuple(x.shape), x.dtype, torch.float32)
    for name, row in (("weight", weight), ("bias", bias), ("x_bias", x_bias)):
        if row is not None:
            check(name, row, (x.shape[1],), *DTYPES)
    seed = dropout_seed(dropout, seed, x.device)
    outputs = _AddNorm.apply(eps, dropout, x, x_bias, residual, weight, bias, seed)  # type: ignore[no-untyped-call]
    return cast("tuple[Tensor, Tensor]", outputs if isinstance(outputs, tuple) else (outputs, outputs))


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, eps: float, dropout: float, x: Tensor, *others: Any) -> Tensor | tuple[Tensor, Tensor]:
        x, residual = x.contiguous(), others[1]
        out = torch.empty_like(x if residual is None else residual)
        rounded = None if out.dtype == x.dtype else torch.empty_like(x)
        rows, dim = x.shape
        stats = torch.empty(2, rows, dtype=torch.float32, device=x.device)  # mean and inverse deviation
        block = row_block(dim)
        tensors = x, *others, out, rounded, stats
        launch(_norm_rows, (triton.cdiv(rows, block["ROWS"]),), *tensors, rows, eps, dropout, **block)
        ctx.save_for_backward(x, *others, stats)
        ctx.dropout = dropout
        ctx.set_materialize_grads(False)
        return out if rounded is None else (out, rounded)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_rounded: Tensor | None = None) -> tuple[Tensor | None, ...]:
        if d_out is None and d_rounded is None:
            return (None,) * 8
        x, x_bias, residual, weight, bias, seed, stats = ctx.saved_tensors
        rows, dim = x.shape
        d_x = torch.empty_like(x)
        # Without dropout x and the residual have one gradient.
        separate = residual is not None and (seed is not None or residual.dtype != x.dtype)
        d_residual = torch.empty_like(residual) if separate else None
        block = row_block(dim, elements=1024)
        programs = min(triton.cdiv(rows, block["ROWS"]), PARTIALS)
        partials = torch.empty(programs, 2 if x_bias is None else 3, dim, dtype=torch.float32, device=x.device)
        d_out, d_rounded = (None if grad is None else grad.contiguous() for grad in (d_out, d_rounded))
        tensors = d_out, d_rounded, x, x_bias, residual, weight, seed, stats, d_x, d_residual, partials
        launch(_norm_rows_backward, (programs,), *tensors, rows, ctx.dropout, **block)
        sums = partials.sum(0)
        d_x_bias = None if x_bias is None else sums[2].to(x_bias.dtype)
        d_weight, d_bias = sums[0].to(weight.dtype), sums[1].to(bias.dtype)
        return None, None, d_x, d_x_bias, d_residual if separate or residual is None else d_x, d_weight, d_bias, None


@triton.jit
def layer_norm(x, weight, bias, stats, row, rows, column, eps, DIM: tl.constexpr):
    """Normalize rows, and keep the mean and the inverse deviation of each in `stats`: float32, (rows, columns).

    Args:
        x: float32, (rows, columns), 0 beyond DIM.
        weight: (DIM,), like bias.
        bias: is added.
        stats: (2, rows), for `layer_norm_backward`.
        row: number of each row.
        rows: that count.
        column: number of each column.
        eps: added to the variance.
        DIM: columns that count.
    """
    mean = tl.sum(x, 1) / DIM
    centred = tl.where((column < DIM)[None, :], x - mean[:, None], 0.0)
    rstd = 1 / tl.sqrt(tl.sum(centred * centred, 1) / DIM + eps)
    tl.store(stats + row, mean, mask=row < rows)
    tl.store(stats + rows + row, rstd, mask=row < rows)
    gain = load_tile(weight, column, column < DIM)[None, :]
    shift = load_tile(bias, column, column < DIM)[None, :]
    return centred * rstd[:, None] * gain + shift


@triton.jit
def layer_norm_backward(grad, x, stats, row, rows, inside, DIM: tl.constexpr):
    """Gradient of x, undefined beyond DIM, and its rows of mean 0 and variance 1: (rows, columns) each.

    Args:
        grad: of those rows, so times the weight.
        x: the input of `layer_norm`, like stats, row and rows.
        stats: as it left them.
        row: number of each row.
        rows: that count.
        inside: mask of the elements that count; the rest of the rows is 0.
        DIM: columns that count.
    """
    mean = tl.load(stats + row, mask=row < rows, other=0)
    rstd = tl.load(stats + rows + row, mask=row < rows, other=0)
    normed = tl.where(inside, (x - mean[:, None]) * rstd[:, None], 0.0)
    along = tl.sum(grad * normed, 1) / DIM
    grad_mean = tl.sum(grad, 1) / DIM
    return (grad - grad_mean[:, None] - normed * along[:, None]) * rstd[:, None], normed


@triton.jit
def _sum(x, x_bias, residual, index, inside, column, scale, DIM: tl.constexpr):
    """The input of the normalization: (rows, columns)."""
    total = load_tile(x, index, inside)
    if x_bias is not None:
        total += load_tile(x_bias, column, column < DIM)[None, :]
    total *= scale
    if residual is not None:
        total += load_tile(residual, index, inside)
    return total


@triton.jit(do_not_specialize=["rows"])
def _norm_rows(
    x, x_bias, residual, weight, bias, seed, out, rounded, stats, rows, eps, dropout,
    DIM: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    index, inside = tile(row, rows, column, DIM)
    scale = dropout_scale(seed, row, dropout, BLOCK)
    total = _sum(x, x_bias, residual, index, inside, column, scale, DIM)
    value = layer_norm(total, weight, bias, stats, row, rows, column, eps, DIM)
    tl.store(out + index, value.to(out.dtype.element_ty), mask=inside)
    if rounded is not None:
        tl.store(rounded + index, value.to(rounded.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def _norm_rows_backward(
    d_out, d_rounded, x, x_bias, residual, weight, seed, stats, d_x, d_residual, partials, rows, dropout,
    DIM: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BLOCK)
    gain = load_tile(weight, column, column < DIM)[None, :]
    # Summed over the rows of a block only once, at the end: that takes an exchange between threads.
    d_weight = tl.zeros([ROWS, BLOCK], tl.float32)
    d_bias = tl.zeros([ROWS, BLOCK], tl.float32)
    d_x_bias = tl.zeros([ROWS, BLOCK], tl.float32)
    first = tl.program_id(0) * ROWS
    while first < rows:
        row = first + tl.arange(0, ROWS)
        index, inside = tile(row, rows, column, DIM)
        scale = dropout_scale(seed, row, dropout, BLOCK)
        total = _sum(x, x_bias, residual, index, inside, column, scale, DIM)
        grad = tl.zeros([ROWS, BLOCK], tl.float32)
        if d_out is not None:
            grad += load_tile(d_out, index, inside)
        if d_rounded is not None:
            grad += load_tile(d_rounded, index, inside)
        d_total, normed = layer_norm_backward(grad * gain, total, stats, row, rows, inside, DIM)
        d_weight += grad * normed
        d_bias += grad
        if d_residual is not None:
            tl.store(d_residual + index, d_total.to(d_residual.dtype.element_ty), mask=inside)
        d_total *= scale
        if x_bias is not None:
            d_x_bias += d_total
        tl.store(d_x + index, d_total.to(d_x.dtype.element_ty), mask=inside)
        first += tl.num_programs(0) * ROWS
    base = partials + tl.program_id(0) * (2 if x_bias is None else 3) * DIM
    if x_bias is not None:
        tl.store(base + 2 * DIM + column, tl.sum(d_x_bias, 0), mask=column < DIM)
    tl.store(base + column, tl.sum(d_weight, 0), mask=column < DIM)
    tl.store(base + DIM + column, tl.sum(d_bias, 0), mask=column < DIM)
