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
from torch import Tensor

from minisbert.errors import ConfigError
from minisbert.packing import PackedBatch

from .attention_kernels import (
    TAIL_PROGRAMS,
    attend_backward_keys,
    attend_backward_queries,
    attend_backward_whole,
    attend_forward,
)
from .launch import (
    DTYPES,
    Variant,
    ceil_div,
    check,
    on_device,
    options,
    power_of_two,
    precision,
)
from .rows import seed_of


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
        attend_forward[(_grid(offsets, heads, blocks),)](
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
        for kernel in (attend_backward_whole,) if single else (attend_backward_queries, attend_backward_keys):
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
    return (offsets.shape[0] - 1) * heads * blocks + int(TAIL_PROGRAMS.value)


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
    given = [Variant(attend_forward, {**pointers, **numbers}, constants, tile.warps, tile.stages)]
    tile = backward_tile(longest, head, dtype)
    constants = {**_constants(tile, heads, head, dtype, longest <= tile.keys, drop), **absent}
    kernels = (attend_backward_whole,) if constants.pop("SINGLE") else (attend_backward_queries, attend_backward_keys)
    signature = {**pointers, "grad": values, "d_qkv": values, **numbers}
    return given + [Variant(kernel, signature, constants, tile.warps, tile.stages) for kernel in kernels]
