"""Self-attention within each text of a packed batch: one program for some queries of one head of one text.

Scores live in registers and shared memory only; backward computes them again from the stored logarithm of each row's
sum. Texts no longer than one tile have their three slopes in one kernel. For longer ones a first kernel walks over the
keys for the slope of a block of queries, a second over the queries for the slopes of a block of keys and values: no
sum depends on the order in which programs run.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from minisbert.errors import ConfigError
from minisbert.packing import PackedBatch

from .launch import (
    _INTERPRETED,
    DTYPES,
    INTERPRETED,
    Variant,
    ceil_div,
    check,
    keep,
    on_device,
    operand,
    options,
    power_of_two,
    precision,
)
from .rows import seed_of

_LOG2E = tl.constexpr(1.4426950408889634)
_LN2 = tl.constexpr(0.6931471805599453)
_TAIL_PROGRAMS = tl.constexpr(2 if INTERPRETED else 64)  # which write zeros to tokens of no text
_TAIL_BLOCK = tl.constexpr(1024)


class Tile(NamedTuple):
    """Queries and keys that a program holds at once, and its warps and stages."""

    queries: int
    keys: int
    warps: int
    stages: int


def supports(dim: int, heads: int = 1) -> bool:
    """Whether attention takes token vectors of size `dim`, cut into `heads`."""
    return dim % heads == 0 and dim // heads in (16, 32, 48, 64, 96, 128)


def forward_tile(longest: int, head: int, dtype: torch.dtype) -> Tile:
    """What a program of the forward pass takes, by the longest text: a static table."""
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
    """What a program of the backward pass takes; one tile holds a whole text where `longest` is not above it."""
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

    Only `batch.offsets` and its longest text are read. Tokens beyond the last offset get zeros; texts may be empty.

    Args:
        qkv: float32, float16 or bfloat16, contiguous, on a CUDA device.
        batch: where the texts stand.
        heads: dim is split into this many, of a size that `supports` knows.
        dropout: probability of dropping an attention weight.
        seed: int64, (1,), on the device: what dropout is drawn from; by default drawn itself.
    """
    return attend(qkv, batch.offsets, batch.max_length, heads=heads, dropout=dropout, seed=seed)


def attend(
    qkv: Tensor, offsets: Tensor, longest: int, *, heads: int, dropout: float = 0.0, seed: Tensor | None = None
) -> Tensor:
    """`attention_qkv` where only the offsets are known, int32, (texts + 1,), and a bound of all lengths."""
    check("qkv", qkv, (None, None), *DTYPES)
    check("offsets", offsets, (None,), torch.int32)
    seed = seed_of(dropout, seed, qkv.device)
    if qkv.shape[1] % 3 or not supports(qkv.shape[1] // 3, heads):
        raise ConfigError(
            f"got {qkv.shape[1]} columns for {heads} heads; expected three times heads of 16, 32, 48, 64, 96 or 128"
        )
    out, _ = forward(qkv, offsets, seed, longest, heads, dropout)
    return cast(Tensor, out)


@torch.library.custom_op("minisbert::attention", mutates_args=())
def forward(
    qkv: Tensor, offsets: Tensor, seed: Tensor | None, longest: int, heads: int, dropout: float
) -> tuple[Tensor, Tensor]:
    """What the values average to, (tokens, dim), and the log of the sum of each row, (tokens, heads).

    The second is written for tokens of texts only.
    """
    tokens, dim = qkv.shape[0], qkv.shape[1] // 3
    out = torch.empty(tokens, dim, dtype=qkv.dtype, device=qkv.device)
    lse = torch.empty(tokens, heads, dtype=torch.float32, device=qkv.device)
    tile = forward_tile(longest, dim // heads, qkv.dtype)
    blocks = ceil_div(longest, tile.queries)
    with on_device(qkv):
        _forward[(_grid(offsets, heads, blocks),)](
            *(qkv, out, lse, offsets, seed, offsets.shape[0] - 1, tokens, blocks, dropout),
            **_constants(tile, heads, dim // heads, qkv.dtype, longest <= tile.keys, bool(dropout)),
            **options(tile.warps, tile.stages),
        )
    return out, lse


@torch.library.custom_op("minisbert::attention_backward", mutates_args=())
def backward(
    grad: Tensor,
    qkv: Tensor,
    out: Tensor,
    lse: Tensor,
    offsets: Tensor,
    seed: Tensor | None,
    longest: int,
    heads: int,
    dropout: float,
) -> Tensor:
    """The slope of `forward` for qkv, (tokens, 3 * dim)."""
    grad = grad.contiguous()
    d_qkv = torch.empty_like(qkv)
    tokens, head = qkv.shape[0], qkv.shape[1] // 3 // heads
    tile = backward_tile(longest, head, qkv.dtype)
    single = longest <= tile.keys
    blocks = ceil_div(longest, tile.queries)
    constants = _constants(tile, heads, head, qkv.dtype, single, bool(dropout))
    constants.pop("SINGLE")
    arguments = (qkv, out, grad, lse, d_qkv, offsets, seed, offsets.shape[0] - 1, tokens, blocks, dropout)
    with on_device(qkv):
        for kernel in (_backward_whole,) if single else (_backward_queries, _backward_keys):
            kernel[(_grid(offsets, heads, blocks),)](*arguments, **constants, **options(tile.warps, tile.stages))
    return d_qkv


@forward.register_fake
def _(
    qkv: Tensor, offsets: Tensor, seed: Tensor | None, longest: int, heads: int, dropout: float
) -> tuple[Tensor, Tensor]:
    return qkv.new_empty(qkv.shape[0], qkv.shape[1] // 3), qkv.new_empty(qkv.shape[0], heads, dtype=torch.float32)


@backward.register_fake
def _(
    grad: Tensor,
    qkv: Tensor,
    out: Tensor,
    lse: Tensor,
    offsets: Tensor,
    seed: Tensor | None,
    longest: int,
    heads: int,
    dropout: float,
) -> Tensor:
    return torch.empty_like(qkv)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, offsets, seed, *ctx.settings = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(qkv, *output, offsets, seed)


def _slopes(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None, None, None, None, None]:
    return backward(grad, *ctx.saved_tensors, *ctx.settings), None, None, None, None, None


forward.register_autograd(_slopes, setup_context=_remember)


def _grid(offsets: Tensor, heads: int, blocks: int) -> int:
    return (offsets.shape[0] - 1) * heads * blocks + int(_TAIL_PROGRAMS.value)


def _constants(tile: Tile, heads: int, head: int, dtype: torch.dtype, single: bool, drop: bool) -> dict[str, Any]:
    return {
        "HEADS": heads,
        "HEAD": head,
        "WIDTH": power_of_two(head),
        "QUERIES": tile.queries,
        "KEYS": tile.keys,
        "SINGLE": single,
        "DROP": drop,
        "SCALE": 1 / math.sqrt(head),
        "PRECISION": precision(dtype),
    }


def variants() -> list[Variant]:
    """What heads of 32 and 64 come to in bfloat16 and heads of 32 in float32, and inference with heads of 32."""
    lengths = (16, 32, 64, 128, 512)
    found: list[Variant] = []
    for head, dtype in ((32, torch.bfloat16), (64, torch.bfloat16), (32, torch.float32)):
        for longest in lengths:
            found += _variants(12, head, dtype, longest, True)
    for longest in lengths:
        found += _variants(12, 32, torch.bfloat16, longest, False)[:1]
    return list({variant.name: variant for variant in found}.values())


def _variants(heads: int, head: int, dtype: torch.dtype, longest: int, drop: bool) -> list[Variant]:
    values = f"*{DTYPES[dtype]}"
    numbers = {"texts": "i32", "tokens": "i32", "blocks": "i32", "dropout": "fp32"}
    pointers = {"qkv": values, "out": values, "lse": "*fp32", "offsets": "*i32", "seed": "*i64"}
    tile = forward_tile(longest, head, dtype)
    absent = {} if drop else {"seed": None}
    constants = {**_constants(tile, heads, head, dtype, longest <= tile.keys, drop), **absent}
    given = [Variant(_forward, {**pointers, **numbers}, constants, tile.warps, tile.stages)]
    tile = backward_tile(longest, head, dtype)
    constants = {**_constants(tile, heads, head, dtype, longest <= tile.keys, drop), **absent}
    kernels = (_backward_whole,) if constants.pop("SINGLE") else (_backward_queries, _backward_keys)
    signature = {**pointers, "grad": values, "d_qkv": values, **numbers}
    return given + [Variant(kernel, signature, constants, tile.warps, tile.stages) for kernel in kernels]


_jit = triton.jit(do_not_specialize=["texts", "tokens", "blocks"], do_not_specialize_on_alignment=["seed", "offsets"])


@triton.jit
def _clear_tail(values, offsets, texts, tokens, part, WIDTH: tl.constexpr):
    """Zeros for the tokens of no text, as slopes of weights are sums over all rows."""
    place = tl.load(offsets + texts).to(tl.int64) * WIDTH + part * _TAIL_BLOCK
    end = tokens.to(tl.int64) * WIDTH
    while place < end:
        column = place + tl.arange(0, _TAIL_BLOCK)
        tl.store(values + column, tl.zeros([_TAIL_BLOCK], values.dtype.element_ty), mask=column < end)
        place += _TAIL_PROGRAMS * _TAIL_BLOCK


@triton.jit
def _place(program, offsets, texts, blocks, HEADS: tl.constexpr):
    """Which head, block, first token and length a program has; the longest texts come first, as they take longest."""
    head = program % HEADS
    block = program // HEADS % blocks
    text = texts - 1 - program // HEADS // blocks
    start = tl.load(offsets + text)
    return head, block, start.to(tl.int64), tl.load(offsets + text + 1) - start


@triton.jit
def _rows(values, row, length, STRIDE: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr):
    """Rows of one head, zeros beyond the text: (rows, WIDTH)."""
    column = tl.arange(0, WIDTH)
    place = row[:, None] * STRIDE + column[None, :]
    if HEAD == WIDTH:
        return operand(tl.load(values + place, mask=(row < length)[:, None], other=0.0))
    else:
        return operand(tl.load(values + place, mask=(row < length)[:, None] & (column < HEAD)[None, :], other=0.0))


@triton.jit
def _store_rows(values, row, length, result, STRIDE: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr):
    column = tl.arange(0, WIDTH)
    place = row[:, None] * STRIDE + column[None, :]
    mask = (row < length)[:, None]
    if HEAD != WIDTH:
        mask = mask & (column < HEAD)[None, :]
    tl.store(values + place, result.to(values.dtype.element_ty), mask=mask)


@triton.jit
def _drop(weights, scores, key, number, first, KEYS: tl.constexpr, dropout, TRANSPOSED: tl.constexpr):
    """Weights and the slopes of their scores under dropout."""
    kept = keep(key, number, first, KEYS, dropout)
    if TRANSPOSED:
        kept = tl.trans(kept)
    scale = 1 / (1 - dropout)
    return tl.where(kept, weights * scale, 0.0), tl.where(kept, scores * scale, 0.0)


@triton.jit
def _forward_step(
    q, summed, highest, total, base, first, length, key, number, dropout,
    DIM: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr, KEYS: tl.constexpr,
    DROP: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    column = first + tl.arange(0, KEYS)
    k = _rows(base + DIM, column, length, 3 * DIM, HEAD, WIDTH)
    v = _rows(base + 2 * DIM, column, length, 3 * DIM, HEAD, WIDTH)
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (SCALE * _LOG2E)
    scores = tl.where((column < length)[None, :], scores, float("-inf"))
    higher = tl.maximum(highest, tl.max(scores, 1))
    weights = tl.exp2(scores - higher[:, None])
    decay = tl.exp2(highest - higher)
    total = total * decay + tl.sum(weights, 1)
    if DROP:
        weights = tl.where(keep(key, number, first, KEYS, dropout), weights, 0.0)
    summed = tl.dot(weights.to(v.dtype), v, summed * decay[:, None], input_precision=PRECISION)
    return summed, higher, total


@_jit
def _forward(
    qkv, out, lse, offsets, seed, texts, tokens, blocks, dropout,
    HEADS: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    SINGLE: tl.constexpr, DROP: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    DIM: tl.constexpr = HEADS * HEAD
    program = tl.program_id(0)
    if program < _TAIL_PROGRAMS:
        _clear_tail(out, offsets, texts, tokens, program, DIM)
        return
    head, block, start, length = _place(program - _TAIL_PROGRAMS, offsets, texts, blocks, HEADS)
    if block * QUERIES >= length:
        return
    row = block * QUERIES + tl.arange(0, QUERIES)
    number = (start.to(tl.int32) + row) * HEADS + head
    base = qkv + start * (3 * DIM) + head * HEAD
    q = _rows(base, row, length, 3 * DIM, HEAD, WIDTH)
    key = 0
    if DROP:
        key = tl.load(seed)
    summed = tl.zeros([QUERIES, WIDTH], tl.float32)
    highest = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    if SINGLE:
        summed, highest, total = _forward_step(
            q, summed, highest, total, base, 0, length, key, number, dropout,
            DIM, HEAD, WIDTH, KEYS, DROP, SCALE, PRECISION,
        )  # fmt: skip
    elif _INTERPRETED:
        first = 0
        while first < length:
            summed, highest, total = _forward_step(
                q, summed, highest, total, base, first, length, key, number, dropout,
                DIM, HEAD, WIDTH, KEYS, DROP, SCALE, PRECISION,
            )  # fmt: skip
            first += KEYS
    else:
        for first in tl.range(0, length, KEYS):
            summed, highest, total = _forward_step(
                q, summed, highest, total, base, first, length, key, number, dropout,
                DIM, HEAD, WIDTH, KEYS, DROP, SCALE, PRECISION,
            )  # fmt: skip
    kept = total
    if DROP:
        kept = total * (1 - dropout)
    _store_rows(out + start * DIM + head * HEAD, row, length, summed / kept[:, None], DIM, HEAD, WIDTH)
    tl.store(lse + start * HEADS + row * HEADS + head, (highest + tl.log2(total)) * _LN2, mask=row < length)


@_jit
def _backward_whole(
    qkv, out, grad, lse, d_qkv, offsets, seed, texts, tokens, blocks, dropout,
    HEADS: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    DROP: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All three slopes of one head of a text that fits one tile; tiles of scores are (keys, queries)."""
    DIM: tl.constexpr = HEADS * HEAD
    program = tl.program_id(0)
    if program < _TAIL_PROGRAMS:
        _clear_tail(d_qkv, offsets, texts, tokens, program, 3 * DIM)
        return
    head, _, start, length = _place(program - _TAIL_PROGRAMS, offsets, texts, 1, HEADS)
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
    dropped = weights
    if DROP:
        number = (start.to(tl.int32) + row) * HEADS + head
        dropped, d_weights = _drop(weights, d_weights, tl.load(seed), number, 0, KEYS, dropout, True)
    d_scores = (weights * (d_weights - tl.sum(weights * d_weights, 0)[None, :])).to(q.dtype)
    d_base = d_qkv + start * (3 * DIM) + head * HEAD
    d_v = tl.dot(dropped.to(g.dtype), g, input_precision=PRECISION)
    _store_rows(d_base + 2 * DIM, row, length, d_v, 3 * DIM, HEAD, WIDTH)
    d_k = tl.dot(d_scores, q, input_precision=PRECISION) * SCALE
    _store_rows(d_base + DIM, row, length, d_k, 3 * DIM, HEAD, WIDTH)
    d_q = tl.dot(tl.trans(d_scores), k, input_precision=PRECISION) * SCALE
    _store_rows(d_base, row, length, d_q, 3 * DIM, HEAD, WIDTH)


@triton.jit
def _queries_step(
    d_q, q, g, sums, delta, base, first, length, key, number, dropout,
    DIM: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr, KEYS: tl.constexpr,
    DROP: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    column = first + tl.arange(0, KEYS)
    k = _rows(base + DIM, column, length, 3 * DIM, HEAD, WIDTH)
    v = _rows(base + 2 * DIM, column, length, 3 * DIM, HEAD, WIDTH)
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (SCALE * _LOG2E)
    scores = tl.where((column < length)[None, :], scores, float("-inf"))
    weights = tl.exp2(scores - sums[:, None])
    d_weights = tl.dot(g, tl.trans(v), input_precision=PRECISION)
    if DROP:
        _, d_weights = _drop(weights, d_weights, key, number, first, KEYS, dropout, False)
    d_scores = weights * (d_weights - delta[:, None])
    return tl.dot(d_scores.to(k.dtype), k, d_q, input_precision=PRECISION)


@_jit
def _backward_queries(
    qkv, out, grad, lse, d_qkv, offsets, seed, texts, tokens, blocks, dropout,
    HEADS: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    DROP: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The slope of a block of queries, over all keys of the text."""
    DIM: tl.constexpr = HEADS * HEAD
    program = tl.program_id(0)
    if program < _TAIL_PROGRAMS:
        _clear_tail(d_qkv, offsets, texts, tokens, program, 3 * DIM)
        return
    head, block, start, length = _place(program - _TAIL_PROGRAMS, offsets, texts, blocks, HEADS)
    if block * QUERIES >= length:
        return
    row = block * QUERIES + tl.arange(0, QUERIES)
    number = (start.to(tl.int32) + row) * HEADS + head
    base = qkv + start * (3 * DIM) + head * HEAD
    q = _rows(base, row, length, 3 * DIM, HEAD, WIDTH)
    g = _rows(grad + start * DIM + head * HEAD, row, length, DIM, HEAD, WIDTH)
    attended = _rows(out + start * DIM + head * HEAD, row, length, DIM, HEAD, WIDTH)
    delta = tl.sum(g.to(tl.float32) * attended.to(tl.float32), 1)
    sums = tl.load(lse + start * HEADS + row * HEADS + head, mask=row < length, other=float("inf")) * _LOG2E
    key = 0
    if DROP:
        key = tl.load(seed)
    d_q = tl.zeros([QUERIES, WIDTH], tl.float32)
    if _INTERPRETED:
        first = 0
        while first < length:
            d_q = _queries_step(
                d_q, q, g, sums, delta, base, first, length, key, number, dropout,
                DIM, HEAD, WIDTH, KEYS, DROP, SCALE, PRECISION,
            )  # fmt: skip
            first += KEYS
    else:
        for first in tl.range(0, length, KEYS):
            d_q = _queries_step(
                d_q, q, g, sums, delta, base, first, length, key, number, dropout,
                DIM, HEAD, WIDTH, KEYS, DROP, SCALE, PRECISION,
            )  # fmt: skip
    _store_rows(d_qkv + start * (3 * DIM) + head * HEAD, row, length, d_q * SCALE, 3 * DIM, HEAD, WIDTH)


@triton.jit
def _keys_step(
    d_k, d_v, k, v, out, grad, lse, base, start, head, block, first, length, key, dropout,
    HEADS: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    DROP: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    DIM: tl.constexpr = HEADS * HEAD
    row = first + tl.arange(0, QUERIES)
    q = _rows(base, row, length, 3 * DIM, HEAD, WIDTH)
    g = _rows(grad + start * DIM + head * HEAD, row, length, DIM, HEAD, WIDTH)
    attended = _rows(out + start * DIM + head * HEAD, row, length, DIM, HEAD, WIDTH)
    delta = tl.sum(g.to(tl.float32) * attended.to(tl.float32), 1)
    sums = tl.load(lse + start * HEADS + row * HEADS + head, mask=row < length, other=float("inf")) * _LOG2E
    scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (SCALE * _LOG2E)
    scores = tl.where((block * KEYS + tl.arange(0, KEYS) < length)[:, None], scores, float("-inf"))
    weights = tl.exp2(scores - sums[None, :])
    d_weights = tl.dot(v, tl.trans(g), input_precision=PRECISION)
    dropped = weights
    if DROP:
        number = (start.to(tl.int32) + row) * HEADS + head
        dropped, d_weights = _drop(weights, d_weights, key, number, block * KEYS, KEYS, dropout, True)
    d_scores = weights * (d_weights - delta[None, :])
    d_v = tl.dot(dropped.to(g.dtype), g, d_v, input_precision=PRECISION)
    d_k = tl.dot(d_scores.to(q.dtype), q, d_k, input_precision=PRECISION)
    return d_k, d_v


@_jit
def _backward_keys(
    qkv, out, grad, lse, d_qkv, offsets, seed, texts, tokens, blocks, dropout,
    HEADS: tl.constexpr, HEAD: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    DROP: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The slopes of a block of keys and values, over all queries of the text; tiles of scores are (keys, queries)."""
    DIM: tl.constexpr = HEADS * HEAD
    program = tl.program_id(0)
    if program < _TAIL_PROGRAMS:  # the other kernel clears the tail
        return
    head, block, start, length = _place(program - _TAIL_PROGRAMS, offsets, texts, blocks, HEADS)
    if block * KEYS >= length:
        return
    column = block * KEYS + tl.arange(0, KEYS)
    base = qkv + start * (3 * DIM) + head * HEAD
    k = _rows(base + DIM, column, length, 3 * DIM, HEAD, WIDTH)
    v = _rows(base + 2 * DIM, column, length, 3 * DIM, HEAD, WIDTH)
    key = 0
    if DROP:
        key = tl.load(seed)
    d_k = tl.zeros([KEYS, WIDTH], tl.float32)
    d_v = tl.zeros([KEYS, WIDTH], tl.float32)
    if _INTERPRETED:
        first = 0
        while first < length:
            d_k, d_v = _keys_step(
                d_k, d_v, k, v, out, grad, lse, base, start, head, block, first, length, key, dropout,
                HEADS, HEAD, WIDTH, QUERIES, KEYS, DROP, SCALE, PRECISION,
            )  # fmt: skip
            first += QUERIES
    else:
        for first in tl.range(0, length, QUERIES):
            d_k, d_v = _keys_step(
                d_k, d_v, k, v, out, grad, lse, base, start, head, block, first, length, key, dropout,
                HEADS, HEAD, WIDTH, QUERIES, KEYS, DROP, SCALE, PRECISION,
            )  # fmt: skip
    d_base = d_qkv + start * (3 * DIM) + head * HEAD
    _store_rows(d_base + 2 * DIM, column, length, d_v, 3 * DIM, HEAD, WIDTH)
    _store_rows(d_base + DIM, column, length, d_k * SCALE, 3 * DIM, HEAD, WIDTH)
