"""The embeddings of word, position and type, their sum, normalization and dropout: one pass forward, one backward.

Backward normalizes anew and leaves the slope of each token's sum. From there the slopes of the tables are sums over
the tokens of one row of a table:

- word and position: torch's own `embedding_dense_backward`, which sorts the tokens by row and sums runs of equal rows
  in two stages. It is deterministic and needs neither atomics nor a look at the numbers from the host.
- type: all tokens fall on one or two rows, which such a sum takes one after the other. The row of a single type is
  summed on the way, like the slopes of the weights; several are summed one after the other.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import DTYPES, Variant, ceil_div, check, on_device
from .norm import dropout_factors
from .rows import PARTIALS, check_matrix, load_tile, norm_slope, row_block, seed_of, standardize, variant


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
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`dropout(layer_norm(sum))` of the embeddings of word, position and type: (tokens, dim).

    A number beyond its table gives NaN.

    Args:
        ids: int64, (tokens,), like positions and types.
        positions: rows of the position table.
        types: rows of the type table; None for 0 everywhere.
        word: (words, dim), float32, float16 or bfloat16, like the other tables.
        position: (positions, dim).
        token_type: (types, dim), or None for none.
        weight: (dim,).
        bias: (dim,).
        eps: added to the variance.
        dropout: probability of dropping an element of the result.
        seed: int64, one element, on the device; drawn if not given.
        dtype: of the result; that of the tables by default.

    Raises:
        ConfigError: shapes or dtypes are others.
    """
    check_matrix("word", word)
    dim = word.shape[1]
    for name, rows in (("ids", ids), ("positions", positions), ("types", types)):
        if rows is not None:
            check(name, rows, (ids.shape[0],), torch.int64)
    for name, table in (("word", word), ("position", position), ("token_type", token_type)):
        if table is not None:
            check(name, table, (None, dim), word.dtype)
    for name, row in (("weight", weight), ("bias", bias)):
        check(name, row, (dim,), *DTYPES)
    seed = seed_of(dropout, seed, word.device)
    types = types if token_type is not None else None
    out, _ = _embed_norm(
        ids, positions, types, word, position, token_type, weight, bias, seed, eps, dropout, dtype or word.dtype
    )
    return cast(Tensor, out)


@torch.library.custom_op("minisbert::embed_norm", mutates_args=())
def _embed_norm(
    ids: Tensor,
    positions: Tensor,
    types: Tensor | None,
    word: Tensor,
    position: Tensor,
    token_type: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    seed: Tensor | None,
    eps: float,
    dropout: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    out, stats = _outputs(ids, word, dtype)
    tokens, dim = out.shape
    block = row_block(dim)
    if tokens:
        with on_device(word):
            _embed_rows[(ceil_div(tokens, block.rows),)](
                *(ids, positions, types, word, position, token_type, weight, bias, seed, out, stats),
                *(tokens, *_sizes(word, position, token_type), eps, dropout),
                **block.options(dim),
            )
    return out, stats


def _outputs(ids: Tensor, word: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Room for the rows, and for mean and inverse deviation, (2, tokens)."""
    out = torch.empty(ids.shape[0], word.shape[1], dtype=dtype, device=word.device)
    return out, torch.empty(2, ids.shape[0], dtype=torch.float32, device=word.device)


def _sizes(word: Tensor, position: Tensor, token_type: Tensor | None) -> tuple[int, int, int]:
    return word.shape[0], position.shape[0], 0 if token_type is None else token_type.shape[0]


@_embed_norm.register_fake
def _(
    ids: Tensor,
    positions: Tensor,
    types: Tensor | None,
    word: Tensor,
    position: Tensor,
    token_type: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    seed: Tensor | None,
    eps: float,
    dropout: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    return _outputs(ids, word, dtype)


@torch.library.custom_op("minisbert::embed_norm_backward", mutates_args=())
def _embed_norm_backward(
    d_out: Tensor,
    ids: Tensor,
    positions: Tensor,
    types: Tensor | None,
    word: Tensor,
    position: Tensor,
    token_type: Tensor | None,
    weight: Tensor,
    seed: Tensor | None,
    stats: Tensor,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    d_out = d_out.contiguous()
    d_sum, _ = _slopes(ids, word)
    tokens, dim = d_sum.shape
    block = row_block(dim, sums=True)
    programs = min(ceil_div(tokens, block.rows), PARTIALS)
    partials = torch.empty(programs, 3, dim, dtype=torch.float32, device=word.device)
    if tokens:
        with on_device(word):
            _embed_rows_backward[(programs,)](
                *(d_out, ids, positions, types, word, position, token_type, weight, seed, stats, d_sum, partials),
                *(tokens, *_sizes(word, position, token_type), dropout),
                **block.options(dim),
            )
    return d_sum, partials.sum(0)


def _slopes(ids: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the slope of each token's sum, and for those of weight, bias and the type of all tokens, (3, dim)."""
    tokens, dim = ids.shape[0], word.shape[1]
    sums = torch.empty(3, dim, dtype=torch.float32, device=word.device)
    return torch.empty(tokens, dim, dtype=word.dtype, device=word.device), sums


@_embed_norm_backward.register_fake
def _(
    d_out: Tensor,
    ids: Tensor,
    positions: Tensor,
    types: Tensor | None,
    word: Tensor,
    position: Tensor,
    token_type: Tensor | None,
    weight: Tensor,
    seed: Tensor | None,
    stats: Tensor,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    return _slopes(ids, word)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ids, positions, types, word, position, token_type, weight, bias, seed, _, dropout, _ = inputs
    ctx.save_for_backward(ids, positions, types, word, position, token_type, weight, seed, output[1])
    ctx.dropout, ctx.bias_dtype = dropout, bias.dtype
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, d_out: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    ids, positions, types, word, position, token_type, weight, seed, stats = ctx.saved_tensors
    d_sum, sums = _embed_norm_backward(
        d_out, ids, positions, types, word, position, token_type, weight, seed, stats, ctx.dropout
    )
    _, _, _, needs_word, needs_position, needs_type, *_ = ctx.needs_input_grad
    return (
        *(None,) * 3,
        _row_sums(d_sum, ids, word) if needs_word else None,
        _row_sums(d_sum, positions, position) if needs_position else None,
        _type_sums(d_sum, sums[2], types, token_type) if needs_type else None,
        sums[0].to(weight.dtype),
        sums[1].to(ctx.bias_dtype),
        *(None,) * 4,
    )


def _row_sums(slopes: Tensor, rows: Tensor, table: Tensor) -> Tensor:
    """Sum of the slopes of each row of a table; a number beyond it, whose result was NaN, must not write beyond it."""
    inside = rows.clamp(0, table.shape[0] - 1)
    return cast(Tensor, torch.ops.aten.embedding_dense_backward(slopes, inside, table.shape[0], -1, False))


def _type_sums(slopes: Tensor, total: Tensor, types: Tensor | None, table: Tensor) -> Tensor:
    rows = torch.zeros_like(table, dtype=torch.float32)
    if types is None:
        rows[0] = total
    else:
        for kind, row in enumerate(rows):
            row.copy_((slopes * (types == kind)[:, None]).sum(0, dtype=torch.float32))
    return rows.to(table.dtype)


_embed_norm.register_autograd(_differentiate, setup_context=_save)


@triton.jit
def _gathered(table, numbers, size, row, rows, column, DIM: tl.constexpr):
    """Rows of a table as float32, NaN for numbers beyond it: (rows, columns), 0 beyond DIM."""
    number = tl.load(numbers + row, mask=row < rows, other=0)
    known = (number >= 0) & (number < size)
    inside = (known & (row < rows))[:, None] & (column < DIM)[None, :]
    value = load_tile(table, number[:, None] * DIM + column[None, :], inside)
    return tl.where(known[:, None] | (column >= DIM)[None, :], value, float("nan"))


@triton.jit
def _sum_of_embeddings(
    ids, positions, types, word, position, token_type, row, tokens, words, places, kinds, column, DIM: tl.constexpr
):
    total = _gathered(word, ids, words, row, tokens, column, DIM)
    if token_type is not None:
        if types is not None:
            total += _gathered(token_type, types, kinds, row, tokens, column, DIM)
        else:
            total += load_tile(token_type, column, column < DIM)[None, :]
    return total + _gathered(position, positions, places, row, tokens, column, DIM)


@triton.jit(do_not_specialize=["tokens", "words", "places", "kinds"])
def _embed_rows(
    ids,
    positions,
    types,
    word,
    position,
    token_type,
    weight,
    bias,
    seed,
    out,
    stats,
    tokens,
    words,
    places,
    kinds,
    eps,
    dropout,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row < tokens)[:, None] & (column < DIM)[None, :]  # (ROWS, BLOCK)
    total = _sum_of_embeddings(
        ids, positions, types, word, position, token_type, row, tokens, words, places, kinds, column, DIM
    )
    normed, mean, rstd = standardize(total, column, eps, DIM)
    scale = load_tile(weight, column, column < DIM)[None, :]
    shift = load_tile(bias, column, column < DIM)[None, :]
    value = (normed * scale + shift) * dropout_factors(seed, row, dropout, BLOCK)
    place = row.to(tl.int64)[:, None] * DIM + column[None, :]
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)
    tl.store(stats + row, mean, mask=row < tokens)
    tl.store(stats + tokens + row, rstd, mask=row < tokens)


@triton.jit(do_not_specialize=["tokens", "words", "places", "kinds"])
def _embed_rows_backward(
    d_out,
    ids,
    positions,
    types,
    word,
    position,
    token_type,
    weight,
    seed,
    stats,
    d_sum,
    partials,
    tokens,
    words,
    places,
    kinds,
    dropout,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column = tl.arange(0, BLOCK)
    scale = load_tile(weight, column, column < DIM)[None, :]
    d_weight = tl.zeros([ROWS, BLOCK], tl.float32)
    d_bias = tl.zeros([ROWS, BLOCK], tl.float32)
    d_type = tl.zeros([ROWS, BLOCK], tl.float32)
    first = tl.program_id(0) * ROWS
    while first < tokens:
        row = first + tl.arange(0, ROWS)
        inside = (row < tokens)[:, None] & (column < DIM)[None, :]  # (ROWS, BLOCK)
        place = row.to(tl.int64)[:, None] * DIM + column[None, :]
        total = _sum_of_embeddings(
            ids, positions, types, word, position, token_type, row, tokens, words, places, kinds, column, DIM
        )
        mean = tl.load(stats + row, mask=row < tokens, other=0)
        rstd = tl.load(stats + tokens + row, mask=row < tokens, other=0)
        normed = tl.where(inside, (total - mean[:, None]) * rstd[:, None], 0.0)
        given = load_tile(d_out, place, inside) * dropout_factors(seed, row, dropout, BLOCK)
        d_weight += given * normed
        d_bias += given
        slope = norm_slope(given * scale, normed, rstd, DIM)
        d_type += slope
        tl.store(d_sum + place, slope.to(d_sum.dtype.element_ty), mask=inside)
        first += tl.num_programs(0) * ROWS
    base = partials + tl.program_id(0) * 3 * DIM
    tl.store(base + column, tl.sum(d_weight, 0), mask=column < DIM)
    tl.store(base + DIM + column, tl.sum(d_bias, 0), mask=column < DIM)
    tl.store(base + 2 * DIM + column, tl.sum(d_type, 0), mask=column < DIM)


def variants() -> list[Variant]:
    """What is compiled ahead of time: MiniLM's size, tables in float32 or as the output, the least and the most."""
    found = []
    for table, kind, more in (("*fp32", "*fp32", None), ("*fp32", "*bf16", "*i64"), ("*bf16", "*bf16", None)):
        numbers: dict[str, str | None] = {"ids": "*i64", "positions": "*i64", "types": more, "seed": more}
        tables = dict.fromkeys(("word", "position", "token_type", "weight"), table)
        given = {**numbers, **tables, "stats": "*fp32"}
        slopes = {"d_out": kind, "d_sum": table, "partials": "*fp32"}
        found += [
            variant(_embed_rows, 384, row_block(384), {**given, "bias": table, "out": kind}),
            variant(_embed_rows_backward, 384, row_block(384, sums=True), {**given, **slopes}),
        ]
    return found
