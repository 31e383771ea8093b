"""The Triton kernels of `contrastive.py`: one program for some rows of one side, over a part of the other side."""

from __future__ import annotations

import triton
import triton.language as tl

from .launch import _INTERPRETED, operand

_EPS = tl.constexpr(1e-12)  # rows no longer than this are similar to nothing

_jit = triton.jit(do_not_specialize=["rows", "others", "per_part", "parts", "scale"])


@_jit
def contrast_norms(x, out, rows, DIM: tl.constexpr, ROWS: tl.constexpr):
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
def contrast_forward(
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
def contrast_backward(
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
def contrast_finish(x, x_norms, sums, along, factor, out, rows, parts, scale, DIM: tl.constexpr):
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
