"""Self-attention within each text of a packed batch: one program for a block of queries of one head of one text.

Scores live in registers and shared memory only; backward computes them again from the stored log-sum-exp of each row.
Texts no longer than one tile have their three gradients in one kernel. For longer ones a first kernel walks over the
keys for the gradient of a block of queries, a second over the queries for the gradients of a block of keys and values:
no sum depends on the order in which programs run.

Plain definition: `plain.attention_qkv`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from minisbert.errors import ConfigError
from minisbert.packing import PackedBatch

from .attention_kernels import (
    TAIL_PROGRAMS,
    attend_backward_keys,
    attend_backward_queries,
    attend_backward_whole,
    attend_forward,
)
from .launch import DTYPES, check, dropout_seed, launch, precision


class Tile(NamedTuple):
    """Queries and keys that a program holds at once, and its warps and stages."""

    queries: int
    keys: int
    warps: int
    stages: int


def supports(dim: int, heads: int = 1) -> bool:
    """Return True if attention takes token vectors of size `dim`, cut into `heads`."""
    return dim % heads == 0 and dim // heads in (16, 32, 48, 64, 96, 128)


def forward_tile(longest: int, head: int, dtype: torch.dtype) -> Tile:
    """The tile of a program of the forward pass, by the longest text: a static table."""
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
    """The tile of a program of the backward pass; it holds a whole text where `longest` is not above it."""
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
    return cast(
        Tensor,
        _Attention.apply(qkv, batch.offsets, seed, batch.max_length, heads, dropout),  # type: ignore[no-untyped-call]
    )


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
    texts, blocks = offsets.shape[0] - 1, triton.cdiv(longest, tile.queries)
    arguments = qkv, out, lse, offsets, seed, texts, tokens, blocks, dropout
    constants = _constants(tile, heads, dim // heads, qkv.dtype, seed)
    launch(attend_forward, _grid(texts, heads, blocks), *arguments, SINGLE=longest <= tile.keys, **constants)
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
        whole = longest <= tile.keys
        texts, blocks = offsets.shape[0] - 1, triton.cdiv(longest, tile.queries)
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
