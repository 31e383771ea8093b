"""Contrastive loss over cosine similarities (InfoNCE), without ever holding the matrix of all pairs.

Forward streams over the candidates and keeps the largest score and the sum of each query; backward computes the scores
again, once for the slopes of the queries and once for those of the candidates. Rows are not normalized beforehand:
the inverses of their norms multiply the products in float32. The work on the other side's rows is cut into a fixed
number of parts, so that few rows fill a device too; partial results are added in one order.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from minisbert.errors import ConfigError

from .launch import _INTERPRETED, DTYPES, Variant, ceil_div, check, on_device, operand, options, precision

_EPS = tl.constexpr(1e-12)  # rows no longer than this are similar to nothing
_PROGRAMS = 264  # wanted of a launch: two for each multiprocessor of an H200


class Tile(NamedTuple):
    """Own rows and other rows that a program holds at once, columns of a step of their product, warps and stages."""

    rows: int
    others: int
    step: int
    warps: int
    stages: int


def supports(dim: int) -> bool:
    """Whether the loss takes vectors of size `dim`."""
    return dim > 0 and dim % 16 == 0


def forward_tile(dtype: torch.dtype) -> Tile:
    """What a program of the forward pass takes: a static table."""
    return Tile(64, 64, 32, 4, 2) if dtype == torch.float32 else Tile(64, 128, 64, 4, 3)


def backward_tile(dtype: torch.dtype) -> Tile:
    """What a program of the backward pass takes."""
    return Tile(32, 32, 32, 8, 2) if dtype == torch.float32 else Tile(64, 64, 64, 8, 2)


def contrastive(queries: Tensor, candidates: Tensor, *, scale: float = 20.0, ids: Tensor | None = None) -> Tensor:
    """Mean cross entropy of each query's own candidate among all: a scalar in float32.

    Args:
        queries: (queries, dim), float32, float16 or bfloat16, contiguous, on a CUDA device; dim a multiple of 16.
        candidates: (candidates, dim), the first of them the queries' own.
        scale: multiplies the cosine similarities.
        ids: int64, (candidates,): what has the id of a query's own candidate, and is another, does not count for it.
    """
    check("queries", queries, (None, None), *DTYPES)
    check("candidates", candidates, (None, queries.shape[1]), queries.dtype)
    if not supports(queries.shape[1]):
        raise ConfigError(f"got vectors of size {queries.shape[1]}; expected a multiple of 16")
    if not 0 < queries.shape[0] <= candidates.shape[0]:
        raise ConfigError(
            f"got {queries.shape[0]} queries and {candidates.shape[0]} candidates; expected a candidate for each query"
        )
    if ids is not None:
        check("ids", ids, (candidates.shape[0],), torch.int64)
    loss, *_ = forward(queries, candidates, ids, scale)
    return cast(Tensor, loss)


@torch.library.custom_op("minisbert::contrastive", mutates_args=())
def forward(
    queries: Tensor, candidates: Tensor, ids: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, the log of each query's sum, (queries,), and the inverse norms of queries and candidates."""
    rows, others = queries.shape[0], candidates.shape[0]
    tile = forward_tile(queries.dtype)
    blocks = ceil_div(rows, tile.rows)
    parts, per_part = _parts(blocks, ceil_div(others, tile.others))
    sums = torch.empty(2, parts, rows, dtype=torch.float32, device=queries.device)
    with on_device(queries):
        norms = _inverse_norms(queries), _inverse_norms(candidates)
        _forward[(blocks, parts)](
            *(queries, candidates, *norms, ids, sums[0], sums[1], rows, others, per_part, scale),
            **_constants(tile, queries.shape[1], queries.dtype),
            **options(tile.warps, tile.stages),
        )
    lse, own = sums[0].logsumexp(0), sums[1].sum(0)
    return (lse - own).mean(), lse, *norms


@torch.library.custom_op("minisbert::contrastive_backward", mutates_args=())
def backward(
    grad: Tensor,
    queries: Tensor,
    candidates: Tensor,
    ids: Tensor | None,
    lse: Tensor,
    query_norms: Tensor,
    candidate_norms: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """The slopes of the loss for queries and candidates."""
    factor = (grad.float() / queries.shape[0]).reshape(1)
    with on_device(queries):
        return (
            _slope(queries, candidates, query_norms, candidate_norms, ids, lse, factor, scale, of_queries=True),
            _slope(candidates, queries, candidate_norms, query_norms, ids, lse, factor, scale, of_queries=False),
        )


@forward.register_fake
def _(queries: Tensor, candidates: Tensor, ids: Tensor | None, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, others = queries.shape[0], candidates.shape[0]
    one, *vectors = (queries.new_empty(shape, dtype=torch.float32) for shape in ((), (rows,), (rows,), (others,)))
    return one, vectors[0], vectors[1], vectors[2]


@backward.register_fake
def _(
    grad: Tensor,
    queries: Tensor,
    candidates: Tensor,
    ids: Tensor | None,
    lse: Tensor,
    query_norms: Tensor,
    candidate_norms: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(queries), torch.empty_like(candidates)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.scale = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*tensors, *output[1:])


def _slopes(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor, Tensor, None, None]:
    return *backward(grad, *ctx.saved_tensors, ctx.scale), None, None


forward.register_autograd(_slopes, setup_context=_remember)


def _inverse_norms(x: Tensor) -> Tensor:
    out = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
    _norms[(ceil_div(x.shape[0], 16),)](x, out, x.shape[0], DIM=x.shape[1], ROWS=16, **options(4))
    return out


def _slope(
    x: Tensor,
    others: Tensor,
    norms: Tensor,
    other_norms: Tensor,
    ids: Tensor | None,
    lse: Tensor,
    factor: Tensor,
    scale: float,
    *,
    of_queries: bool,
) -> Tensor:
    rows, dim = x.shape
    tile = backward_tile(x.dtype)
    blocks, groups = ceil_div(rows, tile.rows), ceil_div(dim, 3 * _chunk(x.dtype))
    parts, per_part = _parts(blocks * groups, ceil_div(others.shape[0], tile.others))
    sums = torch.empty(parts, rows, dim, dtype=torch.float32, device=x.device)
    along = torch.empty(parts, rows, dtype=torch.float32, device=x.device)
    _backward[(blocks, parts, groups)](
        *(x, others, norms, other_norms, ids, lse, sums, along, rows, others.shape[0], per_part, scale),
        OF_QUERIES=of_queries,
        **_chunks(dim, x.dtype),
        **_constants(tile, dim, x.dtype),
        **options(tile.warps, tile.stages),
    )
    out = torch.empty_like(x)
    _finish[(rows,)](x, norms, sums, along, factor, out, rows, parts, scale, DIM=dim, **options(4))
    return out


def _parts(blocks: int, other_blocks: int) -> tuple[int, int]:
    """Into how many parts the other rows are cut, and blocks of them in each."""
    per_part = ceil_div(other_blocks, max(1, min(other_blocks, _PROGRAMS // blocks)))
    return ceil_div(other_blocks, per_part), per_part


def _chunk(dtype: torch.dtype) -> int:
    """Columns of slopes that one product gives; three products for each one in float32 leave fewer registers."""
    return 64 if dtype == torch.float32 else 128


def _chunks(dim: int, dtype: torch.dtype) -> dict[str, int]:
    return {"CHUNK": _chunk(dtype), "CHUNKS": min(3, ceil_div(dim, _chunk(dtype)))}


def _constants(tile: Tile, dim: int, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "DIM": dim,
        "ROWS": tile.rows,
        "OTHERS": tile.others,
        "STEP": tile.step,
        "PRECISION": precision(dtype),
    }


def variants() -> list[Variant]:
    """What vectors of 384 in bfloat16 and float32 come to, with and without ids, and of 768 in bfloat16."""
    found = []
    for dim, dtype, marked in ((384, torch.bfloat16, False), (384, torch.float32, True), (768, torch.bfloat16, True)):
        values = f"*{DTYPES[dtype]}"
        numbers = {"rows": "i32", "others": "i32", "per_part": "i32", "scale": "fp32"}
        absent: dict[str, Any] = {} if marked else {"ids": None}
        own = {"x": values, "y": values, "x_norms": "*fp32", "y_norms": "*fp32", "ids": "*i64"}
        tile = forward_tile(dtype)
        constants = {**_constants(tile, dim, dtype), **absent}
        signature = {**own, "lse": "*fp32", "own": "*fp32", **numbers}
        found.append(Variant(_forward, signature, constants, tile.warps, tile.stages))
        tile = backward_tile(dtype)
        signature = {**own, "lse": "*fp32", "sums": "*fp32", "along": "*fp32", **numbers}
        for of_queries in (True, False):
            constants = {**_constants(tile, dim, dtype), **absent, "OF_QUERIES": of_queries, **_chunks(dim, dtype)}
            found.append(Variant(_backward, signature, constants, tile.warps, tile.stages))
        found.append(Variant(_norms, {"x": values, "out": "*fp32", "rows": "i32"}, {"DIM": dim, "ROWS": 16}, 4, 1))
        signature = dict.fromkeys(("x_norms", "sums", "along", "factor"), "*fp32")
        signature |= {"x": values, "out": values, "rows": "i32", "parts": "i32", "scale": "fp32"}
        found.append(Variant(_finish, signature, {"DIM": dim}, 4, 1))
    return found


_jit = triton.jit(do_not_specialize=["rows", "others", "per_part", "parts", "scale"])


@_jit
def _norms(x, out, rows, DIM: tl.constexpr, ROWS: tl.constexpr):
    """Inverses of the lengths of rows, 0 for rows of no length."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros([ROWS], tl.float32)
    for first in tl.static_range(0, DIM, 128):
        values = _tile(x, row, rows, first, DIM, 128).to(tl.float32)
        total += tl.sum(values * values, 1)
    length = tl.sqrt(total)
    inverse = tl.where(length > _EPS, 1 / tl.maximum(length, _EPS), 0.0)
    tl.store(out + row, inverse, mask=row < rows)


@triton.jit
def _tile(x, row, rows, first, DIM: tl.constexpr, COLUMNS: tl.constexpr):
    """Columns `first` on of some rows, zeros beyond the matrix: (rows, COLUMNS)."""
    column = first + tl.arange(0, COLUMNS)
    mask = (row < rows)[:, None]
    if DIM % COLUMNS != 0:
        mask = mask & (column < DIM)[None, :]
    return operand(tl.load(x + row.to(tl.int64)[:, None] * DIM + column[None, :], mask=mask, other=0.0))


@triton.jit
def _products(
    x, y, row, rows, other, others,
    DIM: tl.constexpr, ROWS: tl.constexpr, OTHERS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    total = tl.zeros([ROWS, OTHERS], tl.float32)
    for first in tl.range(0, DIM, STEP):
        a = _tile(x, row, rows, first, DIM, STEP)
        b = _tile(y, other, others, first, DIM, STEP)
        total = tl.dot(a, tl.trans(b), total, input_precision=PRECISION)
    return total


@triton.jit
def _counts(row, rows, other, others, ids):
    """Which pairs count: not beyond the matrix, and no second row with the id of the query's own candidate."""
    counts = (row < rows)[:, None] & (other < others)[None, :]
    if ids is not None:
        # Queries have the ids of the first candidates, so both sides look them up at their own number.
        mine = tl.load(ids + row, mask=row < rows, other=0)
        theirs = tl.load(ids + other, mask=other < others, other=0)
        counts = counts & ((mine[:, None] != theirs[None, :]) | (row[:, None] == other[None, :]))
    return counts


@_jit
def _forward(
    x, y, x_norms, y_norms, ids, lse, own, rows, others, per_part, scale,
    DIM: tl.constexpr, ROWS: tl.constexpr, OTHERS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of some queries and a part of the candidates: the log of the sum, and the score of the own one, if there."""
    part = tl.program_id(1)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    norms = tl.load(x_norms + row, mask=row < rows, other=0.0) * scale
    # No candidate yet: far below any score, and finite, so that differences of two are numbers.
    highest = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mine = tl.zeros([ROWS], tl.float32)
    block = part * per_part
    end = block + per_part
    while block < end:
        other = block * OTHERS + tl.arange(0, OTHERS)
        other_norms = tl.load(y_norms + other, mask=other < others, other=0.0)
        scores = _products(x, y, row, rows, other, others, DIM, ROWS, OTHERS, STEP, PRECISION)
        scores = scores * norms[:, None] * other_norms[None, :]
        mine += tl.sum(tl.where(row[:, None] == other[None, :], scores, 0.0), 1)
        scores = tl.where(_counts(row, rows, other, others, ids), scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(scores - higher[:, None]), 1)
        highest = higher
        block += 1
    # A part may hold nothing that counts.
    result = tl.where(total > 0, highest + tl.log(tl.maximum(total, 1e-30)), float("-inf"))
    tl.store(lse + part * rows + row, result, mask=row < rows)
    tl.store(own + part * rows + row, mine, mask=row < rows)


@triton.jit
def _backward_step(
    sum_0, sum_1, sum_2, parallel, block, x, y, norms, y_norms, ids, lse, row, rows, others, first,
    OF_QUERIES: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr,
    DIM: tl.constexpr, ROWS: tl.constexpr, OTHERS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    other = block * OTHERS + tl.arange(0, OTHERS)
    other_norms = tl.load(y_norms + other, mask=other < others, other=0.0)
    scores = _products(x, y, row, rows, other, others, DIM, ROWS, OTHERS, STEP, PRECISION)
    scores = scores * norms[:, None] * other_norms[None, :]
    counts = _counts(row, rows, other, others, ids)
    if OF_QUERIES:
        logs = tl.load(lse + row, mask=row < rows, other=0.0)[:, None]
    else:
        logs = tl.load(lse + other, mask=other < others, other=0.0)[None, :]
    slopes = tl.exp(tl.where(counts, scores - logs, float("-inf")))
    slopes -= tl.where(counts & (row[:, None] == other[None, :]), 1.0, 0.0)
    parallel += tl.sum(slopes * scores, 1)
    factors = operand((slopes * other_norms[None, :]).to(y.dtype.element_ty))
    values = _tile(y, other, others, first, DIM, CHUNK)
    sum_0 = tl.dot(factors, values, sum_0, input_precision=PRECISION)
    if CHUNKS > 1:
        values = _tile(y, other, others, first + CHUNK, DIM, CHUNK)
        sum_1 = tl.dot(factors, values, sum_1, input_precision=PRECISION)
    if CHUNKS > 2:
        sum_2 = tl.dot(
            factors, _tile(y, other, others, first + 2 * CHUNK, DIM, CHUNK), sum_2, input_precision=PRECISION
        )
    return sum_0, sum_1, sum_2, parallel


@_jit
def _backward(
    x, y, x_norms, y_norms, ids, lse, sums, along, rows, others, per_part, scale,
    OF_QUERIES: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr,
    DIM: tl.constexpr, ROWS: tl.constexpr, OTHERS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of some rows x of one side and a part of the other side's: the sum of their unit vectors times slopes of scores.

    Each program gives up to three chunks of columns, and those of the first three also what lies along x itself.
    """
    part, group = tl.program_id(1), tl.program_id(2)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    norms = tl.load(x_norms + row, mask=row < rows, other=0.0) * scale
    first = group * 3 * CHUNK
    sum_0 = tl.zeros([ROWS, CHUNK], tl.float32)
    sum_1 = tl.zeros([ROWS, CHUNK], tl.float32)
    sum_2 = tl.zeros([ROWS, CHUNK], tl.float32)
    parallel = tl.zeros([ROWS], tl.float32)
    begin = part * per_part
    if _INTERPRETED:
        block = begin
        while block < begin + per_part:
            sum_0, sum_1, sum_2, parallel = _backward_step(
                sum_0, sum_1, sum_2, parallel, block, x, y, norms, y_norms, ids, lse, row, rows, others, first,
                OF_QUERIES, CHUNK, CHUNKS, DIM, ROWS, OTHERS, STEP, PRECISION,
            )  # fmt: skip
            block += 1
    else:
        for block in tl.range(begin, begin + per_part):
            sum_0, sum_1, sum_2, parallel = _backward_step(
                sum_0, sum_1, sum_2, parallel, block, x, y, norms, y_norms, ids, lse, row, rows, others, first,
                OF_QUERIES, CHUNK, CHUNKS, DIM, ROWS, OTHERS, STEP, PRECISION,
            )  # fmt: skip
    base = sums + part.to(tl.int64) * rows * DIM
    _store(base, row, rows, first, sum_0, DIM, CHUNK)
    if CHUNKS > 1:
        _store(base, row, rows, first + CHUNK, sum_1, DIM, CHUNK)
    if CHUNKS > 2:
        _store(base, row, rows, first + 2 * CHUNK, sum_2, DIM, CHUNK)
    if group == 0:
        tl.store(along + part * rows + row, parallel, mask=row < rows)


@triton.jit
def _store(sums, row, rows, first, values, DIM: tl.constexpr, CHUNK: tl.constexpr):
    column = first + tl.arange(0, CHUNK)
    mask = (row < rows)[:, None] & (column < DIM)[None, :]
    tl.store(sums + row.to(tl.int64)[:, None] * DIM + column[None, :], values, mask=mask)


@_jit
def _finish(x, x_norms, sums, along, factor, out, rows, parts, scale, DIM: tl.constexpr):
    """The slope of one row: the parts added, what lies along the row taken away, and the norm divided out."""
    row = tl.program_id(0).to(tl.int64)
    norm = tl.load(x_norms + row)
    weight = tl.load(factor) * norm
    parallel = 0.0
    part = 0
    while part < parts:
        parallel += tl.load(along + part * rows + row)
        part += 1
    for first in tl.static_range(0, DIM, 128):
        column = first + tl.arange(0, 128)
        mask = column < DIM
        total = tl.zeros([128], tl.float32)
        place = sums + row * DIM + column
        part = 0
        while part < parts:
            total += tl.load(place, mask=mask, other=0.0)
            place += rows.to(tl.int64) * DIM
            part += 1
        unit = tl.load(x + row * DIM + column, mask=mask, other=0.0).to(tl.float32) * norm
        slope = weight * (total * scale - unit * parallel)
        tl.store(out + row * DIM + column, slope.to(out.dtype.element_ty), mask=mask)
