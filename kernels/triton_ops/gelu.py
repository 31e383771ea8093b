"""Exact GELU of `x + bias` in one pass, and its gradients in another.

Backward reads x again, so nothing more is saved. A fixed number of programs walk down each block of columns and leave
one partial gradient of the bias each. Plain definition: `F.gelu(x + bias)`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from minisbert.errors import ConfigError

from .launch import DTYPES, check, launch, load_tile, tile

PARTIALS = 128  # programs down one block of columns, where the bias has a gradient


def bias_gelu(x: Tensor, bias: Tensor | None) -> Tensor:
    """`gelu(x + bias)`: (..., columns) to the same, in x's dtype; the sum is not rounded.

    Args:
        x: (..., columns), float32, float16 or bfloat16: output of a linear layer without its bias.
        bias: (columns,), or None.

    Raises:
        ConfigError: a shape or dtype is unsupported.
    """
    if not x.dim() or x.dtype not in DTYPES:
        expected = " or ".join(map(str, DTYPES))
        raise ConfigError(f"got x of shape {list(x.shape)}, {x.dtype}; expected one dimension or more, {expected}")
    if bias is not None:
        check("bias", bias, (x.shape[-1],), *DTYPES)
    return cast(Tensor, _BiasGelu.apply(x, bias))  # type: ignore[no-untyped-call]


class _BiasGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, bias)
        out = torch.empty_like(x)
        rows, block = _block(x)
        grid = triton.cdiv(rows, block["ROWS"]), triton.cdiv(block["COLUMNS"], block["BLOCK"])
        launch(_gelu_tiles, grid, x, bias, out, rows, **block)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor | None]:
        x, bias = ctx.saved_tensors
        d_x = torch.empty_like(x)
        rows, block = _block(x)
        programs = triton.cdiv(rows, block["ROWS"])
        partials = None
        if bias is not None:
            programs = min(programs, PARTIALS)
            partials = torch.empty(programs, block["COLUMNS"], dtype=torch.float32, device=x.device)
        grid = programs, triton.cdiv(block["COLUMNS"], block["BLOCK"])
        launch(_gelu_tiles_backward, grid, d_out.contiguous(), x, bias, d_x, partials, rows, **block)
        return d_x, None if partials is None else partials.sum(0).to(bias.dtype)


def _block(x: Tensor) -> tuple[int, dict[str, int]]:
    """Rows of x, and the tile of one program: 16 elements for each thread."""
    columns = x.shape[-1]
    width = min(256, triton.next_power_of_2(max(columns, 1)))
    return x.shape[:-1].numel(), {"COLUMNS": columns, "ROWS": min(2048 // width, 64), "BLOCK": width}


@triton.jit
def _normal_cdf(value):
    return 0.5 * (1 + tl.erf(value * 0.7071067811865476))


@triton.jit(do_not_specialize=["rows"])
def _gelu_tiles(x, bias, out, rows, COLUMNS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    index, inside = tile(row, rows, column, COLUMNS)
    value = load_tile(x, index, inside)
    if bias is not None:
        value += load_tile(bias, column, column < COLUMNS)[None, :]
    tl.store(out + index, (value * _normal_cdf(value)).to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def _gelu_tiles_backward(
    d_out, x, bias, d_x, partials, rows, COLUMNS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d_bias = tl.zeros([ROWS, BLOCK], tl.float32)
    first = tl.program_id(0) * ROWS
    while first < rows:
        row = first + tl.arange(0, ROWS)
        index, inside = tile(row, rows, column, COLUMNS)
        value = load_tile(x, index, inside)
        if bias is not None:
            value += load_tile(bias, column, column < COLUMNS)[None, :]
        density = 0.3989422804014327 * tl.exp(-0.5 * value * value)
        grad = load_tile(d_out, index, inside) * (_normal_cdf(value) + value * density)
        if bias is not None:
            d_bias += grad
        tl.store(d_x + index, grad.to(d_x.dtype.element_ty), mask=inside)
        first += tl.num_programs(0) * ROWS
    if bias is not None:
        tl.store(partials + tl.program_id(0) * COLUMNS + column, tl.sum(d_bias, 0), mask=column < COLUMNS)
