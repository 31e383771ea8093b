"""Mean of the rows of each text of a packed batch, in one pass forward and one backward.

One program takes one text, so no sum depends on the order in which programs run. Plain definition: `plain.mean_pool`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from minisbert.packing import PackedBatch

from ..operations.protocol import supports_rows
from .launch import check, check_rows, launch, load_tile, row_block

supports = supports_rows


def mean_pool(values: Tensor, batch: PackedBatch) -> Tensor:
    """Mean of the rows of each text: (tokens, dim) to (texts, dim), in float32.

    A text without tokens has zeros. Rows after the last text belong to none, and their gradient is 0.

    Raises:
        ConfigError: a shape or dtype is unsupported.
    """
    check_rows("values", values)
    check("offsets", batch.offsets, (None,), torch.int32)
    return cast(Tensor, _MeanPool.apply(values, batch.offsets))  # type: ignore[no-untyped-call]


class _MeanPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(offsets)
        ctx.tokens, ctx.dtype = values.shape[0], values.dtype
        texts, dim = offsets.shape[0] - 1, values.shape[1]
        out = torch.empty(texts, dim, dtype=torch.float32, device=values.device)
        launch(_pool_texts, (texts,), values.contiguous(), offsets, out, **_block(dim))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, None]:
        (offsets,) = ctx.saved_tensors
        texts, dim = d_out.shape
        d_values = torch.empty(ctx.tokens, dim, dtype=ctx.dtype, device=d_out.device)
        if not texts:
            return d_values.zero_(), None
        launch(_pool_texts_backward, (texts,), d_out.contiguous(), offsets, d_values, ctx.tokens, **_block(dim))
        return d_values, None


def _block(dim: int) -> dict[str, int]:
    """Twice the rows of kernels whose rows are independent: here each block waits for the one before."""
    block = row_block(dim)
    return {**block, "ROWS": 2 * block["ROWS"]}


@triton.jit
def _pool_texts(values, offsets, out, DIM: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
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
    tl.store(out + text * DIM + column, mean, mask=column < DIM)


@triton.jit(do_not_specialize=["tokens"])
def _pool_texts_backward(d_out, offsets, d_values, tokens, DIM: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    text = tl.program_id(0).to(tl.int64)
    first = tl.load(offsets + text)
    end = tl.load(offsets + text + 1)
    column = tl.arange(0, BLOCK)
    grad = load_tile(d_out, text * DIM + column, column < DIM) / tl.maximum(end - first, 1).to(tl.float32)
    _fill_rows(d_values, first, end, ROWS, column, grad, DIM, ROWS, BLOCK)
    # Rows that belong to no text, shared among all programs.
    first = tl.load(offsets + tl.num_programs(0)) + tl.program_id(0) * ROWS
    nothing = tl.zeros([BLOCK], tl.float32)
    _fill_rows(d_values, first, tokens, tl.num_programs(0) * ROWS, column, nothing, DIM, ROWS, BLOCK)


@triton.jit
def _fill_rows(out, first, end, step, column, value, DIM: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Store `value`, (BLOCK,), in blocks of ROWS rows, from `first` up to `end`, `step` rows apart."""
    tile = (tl.zeros([ROWS, BLOCK], tl.float32) + value[None, :]).to(out.dtype.element_ty)
    while first < end:
        row = first + tl.arange(0, ROWS)
        inside = (row < end)[:, None] & (column < DIM)[None, :]  # (ROWS, BLOCK)
        tl.store(out + row.to(tl.int64)[:, None] * DIM + column[None, :], tile, mask=inside)
        first += step
