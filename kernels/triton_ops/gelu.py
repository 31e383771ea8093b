"""GELU of `x + bias`, exact, in one pass forward and one backward that also sums the slope of the bias.

Backward reads x again, so that nothing is saved that was not there. Blocks of columns are walked down by a fixed number
of programs, each of which leaves one partial slope of its columns of the bias.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from minisbert.errors import ConfigError

from .launch import DTYPES, FUSION, Variant, ceil_div, check, on_device, power_of_two
from .rows import load_tile

PARTIALS = 128  # programs down one block of columns, where the bias has a slope
_WARPS = 4
_OPTIONS: dict[str, Any] = {"num_warps": _WARPS, **FUSION}


def gelu(x: Tensor) -> Tensor:
    """`x * (1 + erf(x / sqrt(2))) / 2` of every element, in x's dtype."""
    return bias_gelu(x, None)


def bias_gelu(x: Tensor, bias: Tensor | None) -> Tensor:
    """`gelu(x + bias)`: (..., columns) to the same, in x's dtype; the sum is not rounded.

    Args:
        x: (..., columns), float32, float16 or bfloat16: of a linear layer, without its bias.
        bias: (columns,), or None for none.

    Raises:
        ConfigError: shapes or dtypes are others.
    """
    if not x.dim() or x.dtype not in DTYPES:
        expected = " or ".join(map(str, DTYPES))
        raise ConfigError(f"got x of shape {list(x.shape)}, {x.dtype}; expected one dimension or more, {expected}")
    if bias is not None:
        check("bias", bias, (x.shape[-1],), *DTYPES)
    return cast(Tensor, _bias_gelu(x, bias))


@torch.library.custom_op("minisbert::bias_gelu", mutates_args=())
def _bias_gelu(x: Tensor, bias: Tensor | None) -> Tensor:
    x = x.contiguous()
    out = _like(x, x.dtype)
    if x.numel():
        rows, block = _cut(x)
        with on_device(x):
            _gelu_tiles[(ceil_div(rows, block["ROWS"]), ceil_div(x.shape[-1], block["BLOCK"]))](
                x, bias, out, rows, **block, **_OPTIONS
            )
    return out


@_bias_gelu.register_fake
def _(x: Tensor, bias: Tensor | None) -> Tensor:
    return _like(x, x.dtype)


@torch.library.custom_op("minisbert::bias_gelu_backward", mutates_args=())
def _bias_gelu_backward(d_out: Tensor, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    d_out, x = d_out.contiguous(), x.contiguous()
    d_x = _like(x, x.dtype)
    if not x.numel():
        return d_x, torch.zeros(_sum_shape(x, bias), dtype=torch.float32, device=x.device)
    rows, block = _cut(x)
    programs = ceil_div(rows, block["ROWS"])
    if bias is not None:
        programs = min(programs, PARTIALS)
    partials = torch.empty(programs, *_sum_shape(x, bias), dtype=torch.float32, device=x.device)
    with on_device(x):
        _gelu_tiles_backward[(programs, ceil_div(x.shape[-1], block["BLOCK"]))](
            d_out, x, bias, d_x, None if bias is None else partials, rows, **block, **_OPTIONS
        )
    return d_x, partials.sum(0)


@_bias_gelu_backward.register_fake
def _(d_out: Tensor, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    return _like(x, x.dtype), torch.empty(_sum_shape(x, bias), dtype=torch.float32, device=x.device)


def _like(x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(x.shape, dtype=dtype, device=x.device)


def _sum_shape(x: Tensor, bias: Tensor | None) -> tuple[int, ...]:
    return (0,) if bias is None else (x.shape[-1],)


def _cut(x: Tensor) -> tuple[int, dict[str, int]]:
    """Rows of x, and the tile of one program: 16 elements for each thread."""
    return x.numel() // x.shape[-1], _tile(x.shape[-1])


def _tile(columns: int) -> dict[str, int]:
    block = min(256, power_of_two(columns))
    return {"COLUMNS": columns, "ROWS": min(2048 // block, 64), "BLOCK": block}


def _save(ctx: Any, inputs: tuple[Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor | None]:
    x, bias = ctx.saved_tensors
    d_x, d_bias = _bias_gelu_backward(d_out, x, bias)
    return d_x, None if bias is None else d_bias.to(bias.dtype)


_bias_gelu.register_autograd(_differentiate, setup_context=_save)


@triton.jit
def _probability(value):
    """That a standard normal number is below `value`."""
    return 0.5 * (1 + tl.erf(value * 0.7071067811865476))


@triton.jit(do_not_specialize=["rows"])
def _gelu_tiles(x, bias, out, rows, COLUMNS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < COLUMNS)[None, :]  # (ROWS, BLOCK)
    place = row.to(tl.int64)[:, None] * COLUMNS + column[None, :]
    value = load_tile(x, place, inside)
    if bias is not None:
        value += load_tile(bias, column, column < COLUMNS)[None, :]
    tl.store(out + place, (value * _probability(value)).to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def _gelu_tiles_backward(
    d_out, x, bias, d_x, partials, rows, COLUMNS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d_bias = tl.zeros([ROWS, BLOCK], tl.float32)
    first = tl.program_id(0) * ROWS
    while first < rows:
        row = first + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < COLUMNS)[None, :]  # (ROWS, BLOCK)
        place = row.to(tl.int64)[:, None] * COLUMNS + column[None, :]
        value = load_tile(x, place, inside)
        if bias is not None:
            value += load_tile(bias, column, column < COLUMNS)[None, :]
        density = 0.3989422804014327 * tl.exp(-0.5 * value * value)
        slope = load_tile(d_out, place, inside) * (_probability(value) + value * density)
        if bias is not None:
            d_bias += slope
        tl.store(d_x + place, slope.to(d_x.dtype.element_ty), mask=inside)
        first += tl.num_programs(0) * ROWS
    if bias is not None:
        tl.store(partials + tl.program_id(0) * COLUMNS + column, tl.sum(d_bias, 0), mask=column < COLUMNS)


def variants() -> list[Variant]:
    """What is compiled ahead of time: MiniLM's size between the linear layers."""
    found = []
    for kind, bias in (("*bf16", "*fp32"), ("*bf16", None), ("*fp32", "*fp32")):
        found.append(_variant(_gelu_tiles, 1536, x=kind, bias=bias, out=kind))
        slopes = {"d_out": kind, "d_x": kind, "partials": bias}
        found.append(_variant(_gelu_tiles_backward, 1536, x=kind, bias=bias, **slopes))
    return found


def _variant(kernel: Any, columns: int, **types: str | None) -> Variant:
    given = {name: kind for name, kind in types.items() if kind is not None}
    missing = {name: None for name, kind in types.items() if kind is None}
    return Variant(kernel, {**given, "rows": "i32"}, {**missing, **_tile(columns)}, _WARPS, 3)
