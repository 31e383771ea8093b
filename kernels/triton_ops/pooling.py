"""Mean of the rows of each text of a packed batch, of length 1 if asked, in one pass forward and one backward.

One program takes one text, so that no sum depends on who comes first.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from minisbert.packing import PackedBatch

from .launch import Variant, check, on_device
from .rows import RowBlock, check_matrix, load_tile, row_block, supports, variant

__all__ = ["mean_pool", "supports"]


def mean_pool(values: Tensor, batch: PackedBatch, *, normalize: bool = False) -> Tensor:
    """Mean of the rows of each text, of length 1 if asked: (tokens, dim) to (texts, dim), in float32.

    A text without tokens has zeros. Rows beyond the last text count for none, and their slope is 0.

    Raises:
        ConfigError: shapes or dtypes are others.
    """
    check_matrix("values", values)
    check("offsets", batch.offsets, (None,), torch.int32)
    pooled, _ = _mean_pool(values, batch.offsets, normalize)
    return cast(Tensor, pooled)


@torch.library.custom_op("minisbert::mean_pool", mutates_args=())
def _mean_pool(values: Tensor, offsets: Tensor, normalize: bool) -> tuple[Tensor, Tensor]:
    values = values.contiguous()
    out, norms = _outputs(values, offsets)
    texts, dim = out.shape
    if texts:
        with on_device(values):
            _pool_texts[(texts,)](values, offsets, out, norms, NORMALIZE=normalize, **_block(dim).options(dim))
    return out, norms


def _outputs(values: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Room for a vector of each text, and for its length before it was made 1."""
    texts = offsets.shape[0] - 1
    out = torch.empty(texts, values.shape[1], dtype=torch.float32, device=values.device)
    return out, torch.empty(texts, dtype=torch.float32, device=values.device)


def _block(dim: int) -> RowBlock:
    """More rows at once than where they are independent: each block waits for the one before."""
    block = row_block(dim)
    return block._replace(rows=2 * block.rows)


@_mean_pool.register_fake
def _(values: Tensor, offsets: Tensor, normalize: bool) -> tuple[Tensor, Tensor]:
    return _outputs(values, offsets)


@torch.library.custom_op("minisbert::mean_pool_backward", mutates_args=())
def _mean_pool_backward(
    d_out: Tensor, out: Tensor, norms: Tensor, offsets: Tensor, tokens: int, dtype: torch.dtype, normalize: bool
) -> Tensor:
    d_values = torch.empty(tokens, out.shape[1], dtype=dtype, device=out.device)
    texts, dim = out.shape
    if not texts:
        return d_values.zero_()
    with on_device(out):
        _pool_texts_backward[(texts,)](
            *(d_out.contiguous(), out, norms, offsets, d_values, tokens),
            NORMALIZE=normalize,
            **_block(dim).options(dim),
        )
    return d_values


@_mean_pool_backward.register_fake
def _(
    d_out: Tensor, out: Tensor, norms: Tensor, offsets: Tensor, tokens: int, dtype: torch.dtype, normalize: bool
) -> Tensor:
    return torch.empty(tokens, out.shape[1], dtype=dtype, device=out.device)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: tuple[Tensor, Tensor]) -> None:
    values, offsets, ctx.normalize = inputs
    ctx.save_for_backward(*output, offsets)
    ctx.tokens, ctx.dtype = values.shape[0], values.dtype
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, d_out: Tensor, _: Any) -> tuple[Tensor, None, None]:
    out, norms, offsets = ctx.saved_tensors
    return _mean_pool_backward(d_out, out, norms, offsets, ctx.tokens, ctx.dtype, ctx.normalize), None, None


_mean_pool.register_autograd(_differentiate, setup_context=_save)


@triton.jit
def _pool_texts(
    values,
    offsets,
    out,
    norms,
    NORMALIZE: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    text = tl.program_id(0).to(tl.int64)
    first = tl.load(offsets + text)
    end = tl.load(offsets + text + 1)
    length = end - first
    column = tl.arange(0, BLOCK)
    sums = tl.zeros([ROWS, BLOCK], tl.float32)
    while first < end:
        row = first + tl.arange(0, ROWS)
        inside = (row < end)[:, None] & (column < DIM)[None, :]  # (ROWS, BLOCK)
        sums += load_tile(values, row.to(tl.int64)[:, None] * DIM + column[None, :], inside)
        first += ROWS
    mean = tl.sum(sums, 0) / tl.maximum(length, 1).to(tl.float32)
    norm = tl.sqrt(tl.sum(mean * mean, 0))
    if NORMALIZE:
        mean = mean / tl.maximum(norm, 1e-12)
    tl.store(out + text * DIM + column, mean, mask=column < DIM)
    tl.store(norms + text, norm)


@triton.jit(do_not_specialize=["tokens"])
def _pool_texts_backward(
    d_out,
    out,
    norms,
    offsets,
    d_values,
    tokens,
    NORMALIZE: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    text = tl.program_id(0).to(tl.int64)
    first = tl.load(offsets + text)
    end = tl.load(offsets + text + 1)
    column = tl.arange(0, BLOCK)
    slope = load_tile(d_out, text * DIM + column, column < DIM)
    if NORMALIZE:
        norm = tl.load(norms + text)
        direction = load_tile(out, text * DIM + column, column < DIM)
        # What is shorter than the least divisor is divided by a constant.
        along = tl.where(norm > 1e-12, tl.sum(slope * direction, 0), 0.0)
        slope = (slope - direction * along) / tl.maximum(norm, 1e-12)
    slope = slope / tl.maximum(end - first, 1).to(tl.float32)
    tile = tl.zeros([ROWS, BLOCK], tl.float32) + slope[None, :]
    while first < end:
        row = first + tl.arange(0, ROWS)
        inside = (row < end)[:, None] & (column < DIM)[None, :]  # (ROWS, BLOCK)
        place = row.to(tl.int64)[:, None] * DIM + column[None, :]
        tl.store(d_values + place, tile.to(d_values.dtype.element_ty), mask=inside)
        first += ROWS
    # Rows that belong to no text, shared among all programs.
    nothing = tl.zeros([ROWS, BLOCK], tl.float32)
    first = tl.load(offsets + tl.num_programs(0)) + tl.program_id(0) * ROWS
    while first < tokens:
        row = first + tl.arange(0, ROWS)
        inside = (row < tokens)[:, None] & (column < DIM)[None, :]  # (ROWS, BLOCK)
        place = row.to(tl.int64)[:, None] * DIM + column[None, :]
        tl.store(d_values + place, nothing.to(d_values.dtype.element_ty), mask=inside)
        first += tl.num_programs(0) * ROWS


def variants() -> list[Variant]:
    """What is compiled ahead of time: MiniLM's size and a larger one, with and without length 1."""
    found = []
    for dim, kind, normalize in ((384, "*bf16", True), (384, "*fp32", False), (768, "*bf16", True)):
        results: dict[str, str | None] = {"out": "*fp32", "norms": "*fp32", "offsets": "*i32"}
        for one in (
            variant(_pool_texts, dim, _block(dim), {"values": kind, **results}),
            variant(_pool_texts_backward, dim, _block(dim), {"d_out": "*fp32", "d_values": kind, **results}),
        ):
            found.append(one._replace(constants={**one.constants, "NORMALIZE": normalize}))
    return found
