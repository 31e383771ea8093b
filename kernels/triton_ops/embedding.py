"""Sum of the embeddings of word, position and type, normalized, with dropout: one pass forward, one backward.

Backward normalizes again and leaves the gradient of each token's sum. From there the gradients of the tables are sums
over the tokens of one row of a table:

- word and position: torch's own `embedding_dense_backward`, which sorts the tokens by row and sums runs of equal rows
  in two stages. It is deterministic and needs neither atomics nor a look at the ids from the host.
- type: all tokens fall on one or two rows, which such a sum takes one after the other. The row of a single type is
  summed on the way, like the gradients of the weights; several are summed one after the other.

Plain definition: `plain.embed_norm`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from .launch import DTYPES, PARTIALS, check, check_rows, dropout_scale, dropout_seed, launch, load_tile, row_block, tile
from .norm import layer_norm, layer_norm_backward


def embed_norm(
    ids: Tensor,
    positions: Tensor,
    types: Tensor | None,
    word: Tensor,
    position: Tensor,
    token_type: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """`dropout(layer_norm(word[ids] + token_type[types] + position[positions]))`: (tokens, dim), in the tables' dtype.

    An index beyond its table gives NaN.

    Args:
        ids: int64, (tokens,), like positions and types.
        positions: rows of the position table.
        types: rows of the type table; None for 0 everywhere.
        word: (words, dim), float32, float16 or bfloat16, like the other tables.
        position: (positions, dim).
        token_type: (types, dim), or None for no such table.
        weight: (dim,).
        bias: (dim,).
        eps: added to the variance.
        dropout: probability of dropping an element of the result.
        seed: int64, one element, on the device; drawn by default.

    Raises:
        ConfigError: a shape or dtype is unsupported.
    """
    check_rows("word", word)
    dim = word.shape[1]
    for name, index in (("ids", ids), ("positions", positions), ("types", types)):
        if index is not None:
            check(name, index, (ids.shape[0],), torch.int64)
    for name, table in (("word", word), ("position", position), ("token_type", token_type)):
        if table is not None:
            check(name, table, (None, dim), word.dtype)
    for name, row in (("weight", weight), ("bias", bias)):
        check(name, row, (dim,), *DTYPES)
    seed = dropout_seed(dropout, seed, word.device)
    indices = ids, positions, types if token_type is not None else None
    tables = word, position, token_type, weight, bias
    return cast(Tensor, _EmbedNorm.apply(eps, dropout, *indices, *tables, seed))  # type: ignore[no-untyped-call]


class _EmbedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, eps: float, dropout: float, *inputs: Any) -> Tensor:
        ids, _, _, word, position, token_type, *_ = inputs
        tokens, dim = ids.shape[0], word.shape[1]
        out: Tensor = word.new_empty(tokens, dim)
        stats = word.new_empty(2, tokens, dtype=torch.float32)  # mean and inverse deviation
        sizes = tokens, *_sizes(word, position, token_type)
        block = row_block(dim)
        launch(_embed_rows, (triton.cdiv(tokens, block["ROWS"]),), *inputs, out, stats, *sizes, eps, dropout, **block)
        ctx.save_for_backward(*inputs, stats)
        ctx.dropout = dropout
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        ids, positions, types, word, position, token_type, weight, bias, seed, stats = ctx.saved_tensors
        tokens, dim = d_out.shape
        d_sum = word.new_empty(tokens, dim)
        block = row_block(dim, elements=1024)
        programs = min(triton.cdiv(tokens, block["ROWS"]), PARTIALS)
        partials = word.new_empty(programs, 3, dim, dtype=torch.float32)
        tensors = d_out.contiguous(), ids, positions, types, word, position, token_type, weight, seed, stats
        sizes = tokens, *_sizes(word, position, token_type)
        launch(_embed_rows_backward, (programs,), *tensors, d_sum, partials, *sizes, ctx.dropout, **block)
        d_weight, d_bias, d_type = partials.sum(0)
        needs_word, needs_position, needs_type = ctx.needs_input_grad[5:8]
        return (
            *(None,) * 5,
            _row_sums(d_sum, ids, word) if needs_word else None,
            _row_sums(d_sum, positions, position) if needs_position else None,
            _type_sums(d_sum, d_type, types, token_type) if needs_type else None,
            d_weight.to(weight.dtype),
            d_bias.to(bias.dtype),
            None,
        )


def _sizes(word: Tensor, position: Tensor, token_type: Tensor | None) -> tuple[int, int, int]:
    return word.shape[0], position.shape[0], 0 if token_type is None else token_type.shape[0]


def _row_sums(grads: Tensor, rows: Tensor, table: Tensor) -> Tensor:
    """Gradient of a table; an index beyond it, whose output was NaN, must not write beyond it."""
    inside = rows.clamp(0, table.shape[0] - 1)
    return cast(Tensor, torch.ops.aten.embedding_dense_backward(grads, inside, table.shape[0], -1, False))


def _type_sums(grads: Tensor, total: Tensor, types: Tensor | None, table: Tensor) -> Tensor:
    """Gradient of the type table; `total`, (dim,), is the sum over all tokens."""
    rows = torch.zeros_like(table, dtype=torch.float32)
    if types is None:
        rows[0] = total
    else:
        for number, row in enumerate(rows):
            row.copy_((grads * (types == number)[:, None]).sum(0, dtype=torch.float32))
    return rows.to(table.dtype)


@triton.jit
def _gather(table, indices, size, row, rows, column, DIM: tl.constexpr):
    """Rows of a table as float32, NaN for an index beyond it: (rows, columns), 0 beyond DIM."""
    index = tl.load(indices + row, mask=row < rows, other=0)
    known = (index >= 0) & (index < size)
    inside = (known & (row < rows))[:, None] & (column < DIM)[None, :]
    value = load_tile(table, index[:, None] * DIM + column[None, :], inside)
    return tl.where(known[:, None] | (column >= DIM)[None, :], value, float("nan"))


@triton.jit
def _sum_of_embeddings(
    ids, positions, types, word, position, token_type, row, tokens, words, places, kinds, column, DIM: tl.constexpr
):
    total = _gather(word, ids, words, row, tokens, column, DIM)
    if token_type is not None:
        if types is not None:
            total += _gather(token_type, types, kinds, row, tokens, column, DIM)
        else:
            total += load_tile(token_type, column, column < DIM)[None, :]
    return total + _gather(position, positions, places, row, tokens, column, DIM)


@triton.jit(do_not_specialize=["tokens", "words", "places", "kinds"])
def _embed_rows(
    ids, positions, types, word, position, token_type, weight, bias, seed, out, stats,
    tokens, words, places, kinds, eps, dropout,
    DIM: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    index, inside = tile(row, tokens, column, DIM)
    total = _sum_of_embeddings(
        ids, positions, types, word, position, token_type, row, tokens, words, places, kinds, column, DIM
    )
    value = layer_norm(total, weight, bias, stats, row, tokens, column, eps, DIM)
    value *= dropout_scale(seed, row, dropout, BLOCK)
    tl.store(out + index, value.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["tokens", "words", "places", "kinds"])
def _embed_rows_backward(
    d_out, ids, positions, types, word, position, token_type, weight, seed, stats, d_sum, partials,
    tokens, words, places, kinds, dropout,
    DIM: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BLOCK)
    gain = load_tile(weight, column, column < DIM)[None, :]
    d_weight = tl.zeros([ROWS, BLOCK], tl.float32)
    d_bias = tl.zeros([ROWS, BLOCK], tl.float32)
    d_type = tl.zeros([ROWS, BLOCK], tl.float32)
    first = tl.program_id(0) * ROWS
    while first < tokens:
        row = first + tl.arange(0, ROWS)
        index, inside = tile(row, tokens, column, DIM)
        total = _sum_of_embeddings(
            ids, positions, types, word, position, token_type, row, tokens, words, places, kinds, column, DIM
        )
        grad = load_tile(d_out, index, inside) * dropout_scale(seed, row, dropout, BLOCK)
        d_total, normed = layer_norm_backward(grad * gain, total, stats, row, tokens, inside, DIM)
        d_weight += grad * normed
        d_bias += grad
        d_type += d_total
        tl.store(d_sum + index, d_total.to(d_sum.dtype.element_ty), mask=inside)
        first += tl.num_programs(0) * ROWS
    base = partials + tl.program_id(0) * 3 * DIM
    tl.store(base + column, tl.sum(d_weight, 0), mask=column < DIM)
    tl.store(base + DIM + column, tl.sum(d_bias, 0), mask=column < DIM)
    tl.store(base + 2 * DIM + column, tl.sum(d_type, 0), mask=column < DIM)
