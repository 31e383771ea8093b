"""Self-attention within each text of a packed batch: one program for a block of queries of one head of one text.

Scores live in registers and shared memory only; backward computes them again from the stored log-sum-exp of each row.
Texts no longer than one tile have their three gradients in one kernel. For longer ones a first kernel walks over the
keys for the gradient of a block of queries, a second over the queries for the gradients of a block of keys and values:
no sum depends on the order in which programs run.

Plain definition: `plain.attention_qkv`.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from minisbert.errors import ConfigError
from minisbert.packing import PackedBatch

from .launch import DTYPES, INTERPRETED, Tile, check, dropout_seed, keep, launch, operand, precision, steps

_LOG2E = tl.constexpr(1.4426950408889634)
_LN2 = tl.constexpr(0.6931471805599453)
TAIL_PROGRAMS = tl.constexpr(2 if INTERPRETED else 64)  # that write zeros to tokens of no text
_TAIL_BLOCK = tl.constexpr(1024)

_jit = triton.jit(do_not_specialize=["texts", "tokens", "blocks"], do_not_specialize_on_alignment=["seed", "offsets"])


def supports(dim: int, heads: int = 1) -> bool:
    """Return True if attention takes token vectors of size `dim`, cut into `heads`."""
    return dim % heads == 0 and dim // heads in (16, 32, 48, 64, 96, 128)


def forward_tile(longest: int, head: int, dtype: torch.dtype) -> Tile:
    """The tile of queries and keys of the forward pass, by the longest text: a static table."""
    full, wide = dtype == torch.float32, head > 64
    if longest <= 16:
        return Tile(16, 16, 1 if head <= 64 else 2, 1)
    if longest <= 32:
        return Tile(32, 32, 2 if head <= 64 else 4, 1)
    if full or wide:
        return Tile(32, 32, 4, 1) if full and wide else Tile(64, 32, 4 if head <= 32 else 8, 2)
    if longest <= 64:
        return Tile(64, 64, 4, 1)
    return Tile(64, 64, 4, 3) if longest <= 256 else Tile(128, 64, 8, 2)


def backward_tile(longest: int, head: int, dtype: torch.dtype) -> Tile:
    """The tile of queries and keys of the backward pass; it holds a whole text where `longest` is not above it."""
    full, wide = dtype == torch.float32, head > 64
    if longest <= 16:
        return Tile(16, 16, 4 if wide else 2 if full and head > 32 else 1, 1)
    if longest <= 32 and not (full and wide):
        return Tile(32, 32, 4 if wide or (full and head > 32) else 2, 1)
    if full:  # three products for each one leave few registers
        return Tile(16, 16, 4, 1)
    return Tile(32, 32, 4, 1) if wide else Tile(64, 64, 4, 1 if longest <= 64 else 2)


def attention_qkv(
    qkv: Tensor, batch: PackedBatch, *, heads: int, dropout: float = 0.0, seed: Tensor | None = None
) -> Tensor:
    """Self-attention within each text: (tokens, 3 * dim), queries, keys and values side by side, to (tokens, dim).

    Tokens after the last offset get zeros; texts may be empty.

    Args:
        qkv: float32, float16 or bfloat16, contiguous, on a CUDA device.
        batch: only its offsets are read, and the length of its longest text, which may be an upper bound.
        heads: dim is split into this many, of a size that `supports` knows.
        dropout: probability of dropping an attention weight.
        seed: int64, (1,), on the device; drawn by default.

    Raises:
        ConfigError: a shape or dtype is unsupported.
    """
    check("qkv", qkv, (None, None), *DTYPES)
    check("offsets", batch.offsets, (None,), torch.int32)
    seed = dropout_seed(dropout, seed, qkv.device)
    if qkv.shape[1] % 3 or not supports(qkv.shape[1] // 3, heads):
        raise ConfigError(
            f"got {qkv.shape[1]} columns for {heads} heads; expected three times heads of 16, 32, 48, 64, 96 or 128"
        )
    attended = _Attention.apply(qkv, batch.offsets, seed, batch.max_length, heads, dropout)  # type: ignore[no-untyped-call]
    return cast(Tensor, attended)


def attend(
    qkv: Tensor, offsets: Tensor, seed: Tensor | None, longest: int, heads: int, dropout: float
) -> tuple[Tensor, Tensor]:
    """The output, (tokens, dim), and the log-sum-exp of each row of scores, (tokens, heads), without gradients.

    The second is written for tokens of texts only.
    """
    tokens, dim = qkv.shape[0], qkv.shape[1] // 3
    out = qkv.new_empty(tokens, dim)
    lse = qkv.new_empty(tokens, heads, dtype=torch.float32)
    tile = forward_tile(longest, dim // heads, qkv.dtype)
    texts, blocks = offsets.shape[0] - 1, triton.cdiv(longest, tile.rows)
    arguments = qkv, out, lse, offsets, seed, texts, tokens, blocks, dropout
    constants = _constants(tile, heads, dim // heads, qkv.dtype, seed)
    launch(attend_forward, _grid(texts, heads, blocks), *arguments, SINGLE=longest <= tile.others, **constants)
    return out, lse


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, offsets: Tensor, seed: Tensor | None, longest: int, heads: int, dropout: float
    ) -> Tensor:
        out, lse = attend(qkv, offsets, seed, longest, heads, dropout)
        ctx.save_for_backward(qkv, out, lse, offsets, seed)
        ctx.settings = longest, heads, dropout
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        qkv, out, lse, offsets, seed = ctx.saved_tensors
        longest, heads, dropout = ctx.settings
        d_qkv = torch.empty_like(qkv)
        head = out.shape[1] // heads
        tile = backward_tile(longest, head, qkv.dtype)
        whole = longest <= tile.others
        texts, blocks = offsets.shape[0] - 1, triton.cdiv(longest, tile.rows)
        arguments = qkv, out, grad.contiguous(), lse, d_qkv, offsets, seed, texts, qkv.shape[0], blocks, dropout
        constants = _constants(tile, heads, head, qkv.dtype, seed)
        for kernel in (attend_backward_whole,) if whole else (attend_backward_queries, attend_backward_keys):
            launch(kernel, _grid(texts, heads, blocks), *arguments, **constants)
        return d_qkv, *(None,) * 5


def _grid(texts: int, heads: int, blocks: int) -> tuple[int]:
    return (texts * heads * blocks + int(TAIL_PROGRAMS.value),)


def _constants(tile: Tile, heads: int, head: int, dtype: torch.dtype, seed: Tensor | None) -> dict[str, Any]:
    queries, keys, warps, stages = tile
    return {
        **{"HEADS": heads, "HEAD": head, "WIDTH": triton.next_power_of_2(head), "QUERIES": queries, "KEYS": keys},
        **{"DROP": seed is not None, "SCALE": 1 / math.sqrt(head), "PRECISION": precision(dtype)},
        **{"warps": warps, "stages": stages},
    }


@triton.jit
def _clear_tail(values, offsets, texts, tokens, part, WIDTH: tl.constexpr):
    """Store zeros for the tokens of no text: gradients of weights are sums over all rows."""
    index = tl.load(offsets + texts).to(tl.int64) * WIDTH + part * _TAIL_BLOCK
    end = tokens.to(tl.int64) * WIDTH
    while index < end:
        column = index + tl.arange(0, _TAIL_BLOCK)
        tl.store(values + column, tl.zeros([_TAIL_BLOCK], values.dtype.element_ty), mask=column < end)
        index += TAIL_PROGRAMS * _TAIL_BLOCK


@triton.jit
def _locate(program, offsets, texts, blocks, HEADS: tl.constexpr):
    """Head, block, first token and length of a program; the longest texts come first, as they take longest."""
    head = program % HEADS
    block = program // HEADS % blocks
    text = texts - 1 - program // HEADS // blocks
    start = tl.load(offsets + text)
    return head, block, start.to(tl.int64), tl.load(offsets + text + 1) - start


@triton.jit
def _head_mask(row, column, length, HEAD: tl.constexpr, WIDTH: tl.constexpr):
    mask = (row < length)[:, None]
    if HEAD != WIDTH:
        mask = mask & (column < HEAD)[None, :]
    return mask


@triton.jit
def _rows(values, row, length, STRIDE: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr):
    """Rows of one head, zeros beyond the text: (rows, WIDTH)."""
    column = tl.arange(0, WIDTH)
    index = row[:, None] * STRIDE + column[None, :]
    return operand(tl.load(values + index, mask=_head_mask(row, column, length, HEAD, WIDTH), other=0.0))


@triton.jit
def _store_rows(values, row, length, result, STRIDE: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr):
    column = tl.arange(0, WIDTH)
    index = row[:, None] * STRIDE + column[None, :]
    tl.store(values + index, result.to(values.dtype.element_ty), mask=_head_mask(row, column, length, HEAD, WIDTH))


@triton.jit
def _drop(weights, scores, drop_seed, drop_row, first, KEYS: tl.constexpr, dropout, TRANSPOSED: tl.constexpr):
    """Attention weights and the gradients of their scores under dropout."""
    kept = keep(drop_seed, drop_row, first, KEYS, dropout)
    if TRANSPOSED:
        kept = tl.trans(kept)
    scale = 1 / (1 - dropout)
    return tl.where(kept, weights * scale, 0.0), tl.where(kept, scores * scale, 0.0)


@_jit
def attend_forward(
    qkv, out, lse, offsets, seed, texts, tokens, blocks, dropout,
    HEADS: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    SINGLE: tl.constexpr, DROP: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Output of a block of queries of one head of one text, and the log-sum-exp of each row of scores."""
    DIM: tl.constexpr = HEADS * HEAD
    program = tl.program_id(0)
    if program < TAIL_PROGRAMS:
        _clear_tail(out, offsets, texts, tokens, program, DIM)
        return
    head, block, start, length = _locate(program - TAIL_PROGRAMS, offsets, texts, blocks, HEADS)
    if block * QUERIES >= length:
        return
    row = block * QUERIES + tl.arange(0, QUERIES)
    drop_row = (start.to(tl.int32) + row) * HEADS + head
    base = qkv + start * (3 * DIM) + head * HEAD
    q = _rows(base, row, length, 3 * DIM, HEAD, WIDTH)
    drop_seed = tl.load(seed) if DROP else 0
    acc = tl.zeros([QUERIES, WIDTH], tl.float32)
    row_max = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    for first in steps(0, KEYS if SINGLE else length, KEYS):
        column = first + tl.arange(0, KEYS)
        k = _rows(base + DIM, column, length, 3 * DIM, HEAD, WIDTH)
        v = _rows(base + 2 * DIM, column, length, 3 * DIM, HEAD, WIDTH)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (SCALE * _LOG2E)
        scores = tl.where((column < length)[None, :], scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        weights = tl.exp2(scores - new_max[:, None])
        decay = tl.exp2(row_max - new_max)
        total = total * decay + tl.sum(weights, 1)
        if DROP:
            weights = tl.where(keep(drop_seed, drop_row, first, KEYS, dropout), weights, 0.0)
        acc = tl.dot(weights.to(v.dtype), v, acc * decay[:, None], input_precision=PRECISION)
        row_max = new_max
    kept = total * (1 - dropout) if DROP else total
    _store_rows(out + start * DIM + head * HEAD, row, length, acc / kept[:, None], DIM, HEAD, WIDTH)
    tl.store(lse + start * HEADS + row * HEADS + head, (row_max + tl.log2(total)) * _LN2, mask=row < length)


@_jit
def attend_backward_whole(
    qkv, out, grad, lse, d_qkv, offsets, seed, texts, tokens, blocks, dropout,
    HEADS: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    DROP: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All three gradients of one head of a text that fits one tile; tiles of scores are (keys, queries)."""
    DIM: tl.constexpr = HEADS * HEAD
    program = tl.program_id(0)
    if program < TAIL_PROGRAMS:
        _clear_tail(d_qkv, offsets, texts, tokens, program, 3 * DIM)
        return
    head, _, start, length = _locate(program - TAIL_PROGRAMS, offsets, texts, 1, HEADS)
    if length == 0:
        return
    row = tl.arange(0, QUERIES)
    base = qkv + start * (3 * DIM) + head * HEAD
    q = _rows(base, row, length, 3 * DIM, HEAD, WIDTH)
    k = _rows(base + DIM, row, length, 3 * DIM, HEAD, WIDTH)
    v = _rows(base + 2 * DIM, row, length, 3 * DIM, HEAD, WIDTH)
    g = _rows(grad + start * DIM + head * HEAD, row, length, DIM, HEAD, WIDTH)
    sums = tl.load(lse + start * HEADS + row * HEADS + head, mask=row < length, other=float("inf"))
    scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (SCALE * _LOG2E)
    scores = tl.where((row < length)[:, None], scores, float("-inf"))
    weights = tl.exp2(scores - (sums * _LOG2E)[None, :])
    d_weights = tl.dot(v, tl.trans(g), input_precision=PRECISION)
    kept_weights = weights
    if DROP:
        drop_row = (start.to(tl.int32) + row) * HEADS + head
        kept_weights, d_weights = _drop(weights, d_weights, tl.load(seed), drop_row, 0, KEYS, dropout, True)
    d_scores = (weights * (d_weights - tl.sum(weights * d_weights, 0)[None, :])).to(q.dtype)
    d_base = d_qkv + start * (3 * DIM) + head * HEAD
    d_v = tl.dot(kept_weights.to(g.dtype), g, input_precision=PRECISION)
    _store_rows(d_base + 2 * DIM, row, length, d_v, 3 * DIM, HEAD, WIDTH)
    d_k = tl.dot(d_scores, q, input_precision=PRECISION) * SCALE
    _store_rows(d_base + DIM, row, length, d_k, 3 * DIM, HEAD, WIDTH)
    d_q = tl.dot(tl.trans(d_scores), k, input_precision=PRECISION) * SCALE
    _store_rows(d_base, row, length, d_q, 3 * DIM, HEAD, WIDTH)


@_jit
def attend_backward_queries(
    qkv, out, grad, lse, d_qkv, offsets, seed, texts, tokens, blocks, dropout,
    HEADS: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    DROP: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of a block of queries, over all keys of the text."""
    DIM: tl.constexpr = HEADS * HEAD
    program = tl.program_id(0)
    if program < TAIL_PROGRAMS:
        _clear_tail(d_qkv, offsets, texts, tokens, program, 3 * DIM)
        return
    head, block, start, length = _locate(program - TAIL_PROGRAMS, offsets, texts, blocks, HEADS)
    if block * QUERIES >= length:
        return
    row = block * QUERIES + tl.arange(0, QUERIES)
    drop_row = (start.to(tl.int32) + row) * HEADS + head
    base = qkv + start * (3 * DIM) + head * HEAD
    q = _rows(base, row, length, 3 * DIM, HEAD, WIDTH)
    g = _rows(grad + start * DIM + head * HEAD, row, length, DIM, HEAD, WIDTH)
    attended = _rows(out + start * DIM + head * HEAD, row, length, DIM, HEAD, WIDTH)
    delta = tl.sum(g.to(tl.float32) * attended.to(tl.float32), 1)
    sums = tl.load(lse + start * HEADS + row * HEADS + head, mask=row < length, other=float("inf")) * _LOG2E
    drop_seed = tl.load(seed) if DROP else 0
    d_q = tl.zeros([QUERIES, WIDTH], tl.float32)
    for first in steps(0, length, KEYS):
        column = first + tl.arange(0, KEYS)
        k = _rows(base + DIM, column, length, 3 * DIM, HEAD, WIDTH)
        v = _rows(base + 2 * DIM, column, length, 3 * DIM, HEAD, WIDTH)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (SCALE * _LOG2E)
        scores = tl.where((column < length)[None, :], scores, float("-inf"))
        weights = tl.exp2(scores - sums[:, None])
        d_weights = tl.dot(g, tl.trans(v), input_precision=PRECISION)
        if DROP:
            _, d_weights = _drop(weights, d_weights, drop_seed, drop_row, first, KEYS, dropout, False)
        d_scores = weights * (d_weights - delta[:, None])
        d_q = tl.dot(d_scores.to(k.dtype), k, d_q, input_precision=PRECISION)
    _store_rows(d_qkv + start * (3 * DIM) + head * HEAD, row, length, d_q * SCALE, 3 * DIM, HEAD, WIDTH)


@_jit
def attend_backward_keys(
    qkv, out, grad, lse, d_qkv, offsets, seed, texts, tokens, blocks, dropout,
    HEADS: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    DROP: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of a block of keys and values, over all queries; tiles of scores are (keys, queries)."""
    DIM: tl.constexpr = HEADS * HEAD
    program = tl.program_id(0)
    if program < TAIL_PROGRAMS:  # the other kernel clears the tail
        return
    head, block, start, length = _locate(program - TAIL_PROGRAMS, offsets, texts, blocks, HEADS)
    if block * KEYS >= length:
        return
    column = block * KEYS + tl.arange(0, KEYS)
    base = qkv + start * (3 * DIM) + head * HEAD
    k = _rows(base + DIM, column, length, 3 * DIM, HEAD, WIDTH)
    v = _rows(base + 2 * DIM, column, length, 3 * DIM, HEAD, WIDTH)
    drop_seed = tl.load(seed) if DROP else 0
    d_k = tl.zeros([KEYS, WIDTH], tl.float32)
    d_v = tl.zeros([KEYS, WIDTH], tl.float32)
    for first in steps(0, length, QUERIES):
        row = first + tl.arange(0, QUERIES)
        q = _rows(base, row, length, 3 * DIM, HEAD, WIDTH)
        g = _rows(grad + start * DIM + head * HEAD, row, length, DIM, HEAD, WIDTH)
        attended = _rows(out + start * DIM + head * HEAD, row, length, DIM, HEAD, WIDTH)
        delta = tl.sum(g.to(tl.float32) * attended.to(tl.float32), 1)
        sums = tl.load(lse + start * HEADS + row * HEADS + head, mask=row < length, other=float("inf")) * _LOG2E
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (SCALE * _LOG2E)
        scores = tl.where((column < length)[:, None], scores, float("-inf"))
        weights = tl.exp2(scores - sums[None, :])
        d_weights = tl.dot(v, tl.trans(g), input_precision=PRECISION)
        kept_weights = weights
        if DROP:
            drop_row = (start.to(tl.int32) + row) * HEADS + head
            kept_weights, d_weights = _drop(weights, d_weights, drop_seed, drop_row, block * KEYS, KEYS, dropout, True)
        d_scores = weights * (d_weights - delta[None, :])
        d_v = tl.dot(kept_weights.to(g.dtype), g, d_v, input_precision=PRECISION)
        d_k = tl.dot(d_scores.to(q.dtype), q, d_k, input_precision=PRECISION)
    d_base = d_qkv + start * (3 * DIM) + head * HEAD
    _store_rows(d_base + 2 * DIM, column, length, d_v, 3 * DIM, HEAD, WIDTH)
    _store_rows(d_base + DIM, column, length, d_k * SCALE, 3 * DIM, HEAD, WIDTH)
