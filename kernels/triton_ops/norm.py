"""Layer normalization of `dropout(x + x_bias) + residual`: one pass forward, one pass and a short sum backward.

A program takes several whole rows. Backward computes the sum anew from x and the residual: that reads as much as a
saved normalized row would take to be written and read, and loses nothing in half precision. A fixed number of
programs walk over the rows and leave one partial slope of the weights each, so that no sum depends on who comes first.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import DTYPES, Variant, ceil_div, check, keep, on_device
from .rows import PARTIALS, check_matrix, load_tile, norm_slope, row_block, seed_of, standardize, variant


def add_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    x_bias: Tensor | None = None,
) -> Tensor:
    """`layer_norm(dropout(x + x_bias) + residual)`: (tokens, dim) each, in x's dtype.

    Args:
        x: (tokens, dim), float32, float16 or bfloat16.
        residual: like x, or in float32.
        weight: (dim,).
        bias: (dim,).
        eps: added to the variance.
        dropout: probability of dropping an element of `x + x_bias`.
        seed: int64, one element, on the device; drawn if not given.
        x_bias: (dim,), the bias of the linear layer that gave x, where that left it out.

    Raises:
        ConfigError: shapes or dtypes are others.
    """
    _check(x, residual, weight, bias, x_bias)
    seed = seed_of(dropout, seed, x.device)
    out, _, _ = _add_norm(x, residual, weight, bias, x_bias, seed, eps, dropout, False)
    return cast(Tensor, out)


def add_norm_both(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    x_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`add_norm` in float32, for the residual stream, and the same rounded to x's dtype, for the next product."""
    _check(x, residual, weight, bias, x_bias)
    seed = seed_of(dropout, seed, x.device)
    both = x.dtype != torch.float32
    out, rounded, _ = _add_norm(x, residual, weight, bias, x_bias, seed, eps, dropout, both)
    return out, rounded if both else out


def _check(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, x_bias: Tensor | None) -> None:
    check_matrix("x", x)
    if residual is not None:
        check("residual", residual, tuple(x.shape), x.dtype, torch.float32)
    for name, row in (("weight", weight), ("bias", bias), ("x_bias", x_bias)):
        if row is not None:
            check(name, row, (x.shape[1],), *DTYPES)


@torch.library.custom_op("minisbert::add_norm", mutates_args=())
def _add_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    x_bias: Tensor | None,
    seed: Tensor | None,
    eps: float,
    dropout: float,
    both: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    x = x.contiguous()
    out, rounded, stats = _outputs(x, both)
    rows, dim = x.shape
    block = row_block(dim)
    if rows:
        with on_device(x):
            _norm_rows[(ceil_div(rows, block.rows),)](
                *(x, x_bias, residual, weight, bias, seed),
                *(out, rounded if both else None, stats, rows, eps, dropout),
                **block.options(dim),
            )
    return out, rounded, stats


def _outputs(x: Tensor, both: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the rows, for the same rounded (if asked for), and for mean and inverse deviation, (2, rows)."""
    out = torch.empty(x.shape, dtype=torch.float32 if both else x.dtype, device=x.device)
    rounded = torch.empty(x.shape if both else (0,), dtype=x.dtype, device=x.device)
    return out, rounded, torch.empty(2, x.shape[0], dtype=torch.float32, device=x.device)


@_add_norm.register_fake
def _(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    x_bias: Tensor | None,
    seed: Tensor | None,
    eps: float,
    dropout: float,
    both: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(x, both)


@torch.library.custom_op("minisbert::add_norm_backward", mutates_args=())
def _add_norm_backward(
    d_out: Tensor | None,
    d_rounded: Tensor | None,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    x_bias: Tensor | None,
    seed: Tensor | None,
    stats: Tensor,
    dropout: float,
    apart: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    x = x.contiguous()
    d_out = None if d_out is None else d_out.contiguous()
    d_rounded = None if d_rounded is None else d_rounded.contiguous()
    d_x, d_residual, _ = _slopes(x, residual, x_bias, apart)
    rows, dim = x.shape
    block = row_block(dim, sums=True)
    programs = min(ceil_div(rows, block.rows), PARTIALS)
    partials = torch.empty(programs, 2 if x_bias is None else 3, dim, dtype=torch.float32, device=x.device)
    if rows:
        with on_device(x):
            _norm_rows_backward[(programs,)](
                *(d_out, d_rounded, x, x_bias, residual, weight, seed, stats),
                *(d_x, d_residual if apart else None, partials, rows, dropout),
                **block.options(dim),
            )
    return d_x, d_residual, partials.sum(0)


def _slopes(x: Tensor, residual: Tensor | None, x_bias: Tensor | None, apart: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the slopes of x, of the residual where they are others, and of weight, bias and x_bias."""
    d_residual = torch.empty_like(residual) if apart and residual is not None else x.new_empty(0)
    sums = torch.empty(2 if x_bias is None else 3, x.shape[1], dtype=torch.float32, device=x.device)
    return torch.empty(x.shape, dtype=x.dtype, device=x.device), d_residual, sums


@_add_norm_backward.register_fake
def _(
    d_out: Tensor | None,
    d_rounded: Tensor | None,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    x_bias: Tensor | None,
    seed: Tensor | None,
    stats: Tensor,
    dropout: float,
    apart: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _slopes(x, residual, x_bias, apart)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, residual, weight, bias, x_bias, seed, _, dropout, both = inputs
    ctx.save_for_backward(x, residual, weight, x_bias, seed, output[2])
    ctx.dropout, ctx.both, ctx.bias_dtype = dropout, both, bias.dtype
    ctx.mark_non_differentiable(*output[2 if both else 1 :])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, d_out: Tensor | None, d_rounded: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    x, residual, weight, x_bias, seed, stats = ctx.saved_tensors
    d_rounded = d_rounded if ctx.both else None
    if d_out is None and d_rounded is None:
        return (None,) * 9
    # Without dropout x and the residual have one slope.
    apart = residual is not None and (seed is not None or residual.dtype != x.dtype)
    d_x, d_residual, sums = _add_norm_backward(
        d_out, d_rounded, x, residual, weight, x_bias, seed, stats, ctx.dropout, apart
    )
    return (
        d_x,
        None if residual is None else d_residual if apart else d_x,
        sums[0].to(weight.dtype),
        sums[1].to(ctx.bias_dtype),
        None if x_bias is None else sums[2].to(x_bias.dtype),
        *(None,) * 4,
    )


_add_norm.register_autograd(_differentiate, setup_context=_save)


@triton.jit
def dropout_factors(seed, row, dropout, BLOCK: tl.constexpr):
    """What each element is multiplied by, 0 or 1 / (1 - dropout): (rows, BLOCK); 1 without a seed."""
    if seed is None:
        return tl.full([1, 1], 1.0, tl.float32)
    else:
        return tl.where(keep(tl.load(seed), row, 0, BLOCK, dropout), 1 / (1 - dropout), 0.0)


@triton.jit
def _total(x, x_bias, residual, place, inside, column, factors, DIM: tl.constexpr):
    """What is normalized: (rows, columns)."""
    total = load_tile(x, place, inside)
    if x_bias is not None:
        total += load_tile(x_bias, column, column < DIM)[None, :]
    total *= factors
    if residual is not None:
        total += load_tile(residual, place, inside)
    return total


@triton.jit(do_not_specialize=["rows"])
def _norm_rows(
    x,
    x_bias,
    residual,
    weight,
    bias,
    seed,
    out,
    rounded,
    stats,
    rows,
    eps,
    dropout,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < DIM)[None, :]  # (ROWS, BLOCK)
    place = row.to(tl.int64)[:, None] * DIM + column[None, :]
    factors = dropout_factors(seed, row, dropout, BLOCK)
    total = _total(x, x_bias, residual, place, inside, column, factors, DIM)
    total, mean, rstd = standardize(total, column, eps, DIM)
    scale = load_tile(weight, column, column < DIM)[None, :]
    shift = load_tile(bias, column, column < DIM)[None, :]
    value = total * scale + shift
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)
    if rounded is not None:
        tl.store(rounded + place, value.to(rounded.dtype.element_ty), mask=inside)
    tl.store(stats + row, mean, mask=row < rows)
    tl.store(stats + rows + row, rstd, mask=row < rows)


@triton.jit(do_not_specialize=["rows"])
def _norm_rows_backward(
    d_out,
    d_rounded,
    x,
    x_bias,
    residual,
    weight,
    seed,
    stats,
    d_x,
    d_residual,
    partials,
    rows,
    dropout,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column = tl.arange(0, BLOCK)
    scale = load_tile(weight, column, column < DIM)[None, :]
    # Summed over the rows of a block only once, at the end: that takes an exchange between threads.
    d_weight = tl.zeros([ROWS, BLOCK], tl.float32)
    d_bias = tl.zeros([ROWS, BLOCK], tl.float32)
    d_x_bias = tl.zeros([ROWS, BLOCK], tl.float32)
    first = tl.program_id(0) * ROWS
    while first < rows:
        row = first + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < DIM)[None, :]  # (ROWS, BLOCK)
        place = row.to(tl.int64)[:, None] * DIM + column[None, :]
        factors = dropout_factors(seed, row, dropout, BLOCK)
        total = _total(x, x_bias, residual, place, inside, column, factors, DIM)
        mean = tl.load(stats + row, mask=row < rows, other=0)
        rstd = tl.load(stats + rows + row, mask=row < rows, other=0)
        normed = tl.where(inside, (total - mean[:, None]) * rstd[:, None], 0.0)
        given = tl.zeros([ROWS, BLOCK], tl.float32)
        if d_out is not None:
            given += load_tile(d_out, place, inside)
        if d_rounded is not None:
            given += load_tile(d_rounded, place, inside)
        d_weight += given * normed
        d_bias += given
        slope = norm_slope(given * scale, normed, rstd, DIM)
        if d_residual is not None:
            tl.store(d_residual + place, slope.to(d_residual.dtype.element_ty), mask=inside)
        slope *= factors
        if x_bias is not None:
            d_x_bias += slope
        tl.store(d_x + place, slope.to(d_x.dtype.element_ty), mask=inside)
        first += tl.num_programs(0) * ROWS
    if x_bias is not None:
        base = partials + tl.program_id(0) * 3 * DIM
        tl.store(base + 2 * DIM + column, tl.sum(d_x_bias, 0), mask=column < DIM)
    else:
        base = partials + tl.program_id(0) * 2 * DIM
    tl.store(base + column, tl.sum(d_weight, 0), mask=column < DIM)
    tl.store(base + DIM + column, tl.sum(d_bias, 0), mask=column < DIM)


def variants() -> list[Variant]:
    """What is compiled ahead of time: the least and the most of each for MiniLM, and the most for a larger model."""
    kinds = (("*bf16", "*bf16"), ("*bf16", "*fp32"), ("*fp32", "*fp32"))
    cases = [(384, *kind, more) for kind in kinds for more in (None, "*fp32")] + [(768, *kinds[1], "*fp32")]
    found = []
    for dim, kind, stream, more in cases:
        seed = more and "*i64"
        half = None if stream == kind else kind
        given: dict[str, str | None] = {"x": kind, "x_bias": more, "residual": stream, "weight": "*fp32", "seed": seed}
        forward = {**given, "bias": "*fp32", "out": stream, "rounded": half, "stats": "*fp32"}
        slopes = {"d_out": stream, "d_rounded": half, "d_x": kind, "d_residual": stream if seed or half else None}
        backward = {**given, **slopes, "partials": "*fp32", "stats": "*fp32"}
        found += [
            variant(_norm_rows, dim, row_block(dim), forward),
            variant(_norm_rows_backward, dim, row_block(dim, sums=True), backward),
        ]
    return found
