"""Contrastive loss over cosine similarities (InfoNCE) that never holds the matrix of all pairs.

Forward streams over the candidates and keeps the largest score and the sum of exponentials of each query; backward
computes the scores again, once for the gradients of the queries and once for those of the candidates. Rows are not
normalized beforehand: the inverses of their norms multiply the products in float32. The work on the rows of the other
side is cut into a fixed number of parts, so that few rows fill a device too; partial results are added in one order.

Plain definition: `plain.contrastive`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from minisbert.errors import ConfigError

from .launch import DTYPES, Tile, check, launch, operand, precision, steps

_PROGRAMS = 264  # wanted of a launch: two for each multiprocessor of an H200
_EPS = tl.constexpr(1e-12)  # rows no longer than this are similar to nothing


def supports(dim: int) -> bool:
    """Return True if the loss takes vectors of size `dim`."""
    return dim > 0 and dim % 16 == 0


def forward_tile(dtype: torch.dtype) -> Tile:
    """The tile of a program of the forward pass: a static table."""
    return Tile(64, 64, 4, 2) if dtype == torch.float32 else Tile(64, 128, 4, 3)


def backward_tile(dtype: torch.dtype) -> Tile:
    """The tile of a program of the backward pass."""
    return Tile(32, 32, 8, 2) if dtype == torch.float32 else Tile(64, 64, 8, 2)


def contrastive(queries: Tensor, candidates: Tensor, *, scale: float = 20.0) -> Tensor:
    """Mean cross entropy of each query's own candidate among all: a scalar in float32.

    Args:
        queries: (queries, dim), float32, float16 or bfloat16, contiguous, on a CUDA device; dim a multiple of 16.
        candidates: (candidates, dim), the first of them the queries' own.
        scale: multiplies the cosine similarities.

    Raises:
        ConfigError: a shape or dtype is unsupported.
    """
    check("queries", queries, (None, None), *DTYPES)
    check("candidates", candidates, (None, queries.shape[1]), queries.dtype)
    if not supports(queries.shape[1]):
        raise ConfigError(f"got vectors of size {queries.shape[1]}; expected a multiple of 16")
    if not 0 < queries.shape[0] <= candidates.shape[0]:
        raise ConfigError(
            f"got {queries.shape[0]} queries and {candidates.shape[0]} candidates; expected a candidate for each query"
        )
    return cast(Tensor, _Contrastive.apply(queries, candidates, scale))  # type: ignore[no-untyped-call]


class _Contrastive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, candidates: Tensor, scale: float) -> Tensor:
        rows, others = queries.shape[0], candidates.shape[0]
        tile = forward_tile(queries.dtype)
        blocks = triton.cdiv(rows, tile.rows)
        parts, per_part = _parts(blocks, triton.cdiv(others, tile.others))
        sums = torch.empty(2, parts, rows, dtype=torch.float32, device=queries.device)
        norms = _inverse_norms(queries), _inverse_norms(candidates)
        arguments = queries, candidates, *norms, sums[0], sums[1], rows, others, per_part, scale
        launch(_contrast_forward, (blocks, parts), *arguments, **_constants(tile, queries))
        lse, own = sums[0].logsumexp(0), sums[1].sum(0)
        ctx.save_for_backward(queries, candidates, lse, *norms)
        ctx.scale = scale
        return (lse - own).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, candidate_rows, lse, norms, candidate_norms = ctx.saved_tensors
        queries, candidates = _Side(rows, norms), _Side(candidate_rows, candidate_norms)
        shared = lse, (grad.float() / len(rows)).reshape(1), ctx.scale
        of_queries = _gradient(queries, candidates, *shared, of_queries=True)
        return of_queries, _gradient(candidates, queries, *shared, of_queries=False), None


def _inverse_norms(x: Tensor) -> Tensor:
    out = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
    launch(_contrast_norms, (triton.cdiv(x.shape[0], 16),), x, out, x.shape[0], DIM=x.shape[1], ROWS=16, stages=1)
    return out


class _Side(NamedTuple):
    """Queries or candidates, and the inverses of their norms."""

    x: Tensor
    norms: Tensor


def _gradient(own: _Side, other: _Side, lse: Tensor, factor: Tensor, scale: float, *, of_queries: bool) -> Tensor:
    """The gradient of the rows of one side."""
    (x, norms), (others, other_norms) = own, other
    rows, dim = x.shape
    tile = backward_tile(x.dtype)
    # Columns of a product; three products for each one in float32 leave fewer registers.
    chunk = 64 if x.dtype == torch.float32 else 128
    blocks, groups = triton.cdiv(rows, tile.rows), triton.cdiv(dim, 3 * chunk)
    parts, per_part = _parts(blocks * groups, triton.cdiv(others.shape[0], tile.others))
    sums = torch.empty(parts, rows, dim, dtype=torch.float32, device=x.device)
    along = torch.empty(parts, rows, dtype=torch.float32, device=x.device)
    arguments = x, others, norms, other_norms, lse, sums, along, rows, others.shape[0], per_part, scale
    constants = {"OF_QUERIES": of_queries, "CHUNK": chunk, "CHUNKS": min(3, triton.cdiv(dim, chunk))}
    launch(_contrast_backward, (blocks, parts, groups), *arguments, **constants, **_constants(tile, x))
    out = torch.empty_like(x)
    launch(_contrast_finish, (rows,), x, norms, sums, along, factor, out, rows, parts, scale, DIM=dim, stages=1)
    return out


def _parts(blocks: int, other_blocks: int) -> tuple[int, int]:
    """Parts into which the other rows are cut, and blocks of them in each."""
    per_part = triton.cdiv(other_blocks, max(1, min(other_blocks, _PROGRAMS // blocks)))
    return triton.cdiv(other_blocks, per_part), per_part


def _constants(tile: Tile, x: Tensor) -> dict[str, Any]:
    rows, others, warps, stages = tile
    step = 32 if x.dtype == torch.float32 else 64  # columns of a step of a product of rows
    sizes = {"DIM": x.shape[1], "ROWS": rows, "OTHERS": others, "STEP": step, "PRECISION": precision(x.dtype)}
    return {**sizes, "warps": warps, "stages": stages}


_jit = triton.jit(do_not_specialize=["rows", "others", "per_part", "parts", "scale"])


@_jit
def _contrast_norms(x, out, rows, DIM: tl.constexpr, ROWS: tl.constexpr):
    """Inverses of the norms of rows, 0 for rows of norm 0."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros([ROWS], tl.float32)
    for first in tl.static_range(0, DIM, 128):
        values = _tile(x, row, rows, first, DIM, 128).to(tl.float32)
        total += tl.sum(values * values, 1)
    norm = tl.sqrt(total)
    inverse = tl.where(norm > _EPS, 1 / tl.maximum(norm, _EPS), 0.0)
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
def _scores(
    x, y, norms, y_norms, row, rows, other, others, DIM: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr
):
    """Scaled similarities, and the mask of those within the matrix: (ROWS, OTHERS) each."""
    other_norms = tl.load(y_norms + other, mask=other < others, other=0.0)
    total = tl.zeros([row.shape[0], other.shape[0]], tl.float32)
    for first in tl.range(0, DIM, STEP):
        a = _tile(x, row, rows, first, DIM, STEP)
        b = _tile(y, other, others, first, DIM, STEP)
        total = tl.dot(a, tl.trans(b), total, input_precision=PRECISION)
    scores = total * norms[:, None] * other_norms[None, :]
    return scores, (row < rows)[:, None] & (other < others)[None, :], other_norms


@_jit
def _contrast_forward(
    x, y, x_norms, y_norms, lse, own, rows, others, per_part, scale,
    DIM: tl.constexpr, ROWS: tl.constexpr, OTHERS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of some queries and a part of the candidates: the log-sum-exp, and the score of the own candidate, if there."""
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
        scores, inside, _ = _scores(x, y, norms, y_norms, row, rows, other, others, DIM, STEP, PRECISION)
        mine += tl.sum(tl.where(row[:, None] == other[None, :], scores, 0.0), 1)
        scores = tl.where(inside, scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(scores - higher[:, None]), 1)
        highest = higher
        block += 1
    # The last part may hold no candidate.
    result = tl.where(total > 0, highest + tl.log(tl.maximum(total, 1e-30)), float("-inf"))
    tl.store(lse + part * rows + row, result, mask=row < rows)
    tl.store(own + part * rows + row, mine, mask=row < rows)


@_jit
def _contrast_backward(
    x, y, x_norms, y_norms, lse, sums, along, rows, others, per_part, scale,
    OF_QUERIES: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr,
    DIM: tl.constexpr, ROWS: tl.constexpr, OTHERS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of some rows x of one side and a part of the other side: the sum of its unit vectors times gradients of scores.

    Each program gives up to three chunks of columns, and those of the first three also the component along x.
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
    for block in steps(begin, begin + per_part, 1):
        other = block * OTHERS + tl.arange(0, OTHERS)
        scores, inside, other_norms = _scores(x, y, norms, y_norms, row, rows, other, others, DIM, STEP, PRECISION)
        if OF_QUERIES:
            logs = tl.load(lse + row, mask=row < rows, other=0.0)[:, None]
        else:
            logs = tl.load(lse + other, mask=other < others, other=0.0)[None, :]
        grads = tl.exp(tl.where(inside, scores - logs, float("-inf")))
        grads -= tl.where(inside & (row[:, None] == other[None, :]), 1.0, 0.0)
        parallel += tl.sum(grads * scores, 1)
        factors = operand((grads * other_norms[None, :]).to(y.dtype.element_ty))
        values = _tile(y, other, others, first, DIM, CHUNK)
        sum_0 = tl.dot(factors, values, sum_0, input_precision=PRECISION)
        if CHUNKS > 1:
            values = _tile(y, other, others, first + CHUNK, DIM, CHUNK)
            sum_1 = tl.dot(factors, values, sum_1, input_precision=PRECISION)
        if CHUNKS > 2:
            values = _tile(y, other, others, first + 2 * CHUNK, DIM, CHUNK)
            sum_2 = tl.dot(factors, values, sum_2, input_precision=PRECISION)
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
def _contrast_finish(x, x_norms, sums, along, factor, out, rows, parts, scale, DIM: tl.constexpr):
    """The gradient of one row: the parts added, the component along the row removed, and the norm divided out."""
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
        base = sums + row * DIM + column
        part = 0
        while part < parts:
            total += tl.load(base, mask=mask, other=0.0)
            base += rows.to(tl.int64) * DIM
            part += 1
        unit = tl.load(x + row * DIM + column, mask=mask, other=0.0).to(tl.float32) * norm
        grad = weight * (total * scale - unit * parallel)
        tl.store(out + row * DIM + column, grad.to(out.dtype.element_ty), mask=mask)
