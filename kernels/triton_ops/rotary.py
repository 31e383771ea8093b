"""Rotary position embeddings of queries or keys in one pass; backward turns the other way.

A program computes the angles of its tokens once for all heads. Plain definition: `plain.rotate`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from minisbert.errors import ConfigError

from ..operations.plain import rotary_frequencies
from .launch import DTYPES, check, launch, load_tile

_ELEMENTS = 1024  # that a program holds of a head, at most
_LARGEST = 512  # size of a head


def supports(size: int) -> bool:
    """Return True if the kernel takes heads of a size."""
    return 0 < size <= _LARGEST and size % 2 == 0


def rotate(x: Tensor, positions: Tensor, size: int, base: float) -> Tensor:
    """Turn pairs of elements of every head by an angle that grows with the position.

    Args:
        x: (tokens, heads * size), float32, float16 or bfloat16.
        positions: int64, (tokens,).
        size: of a head.
        base: the angle of pair i is `position / base ** (2 * i / size)`, in float32.

    Raises:
        ConfigError: a shape or dtype is unsupported.
    """
    if x.dim() != 2 or x.dtype not in DTYPES or not supports(size) or x.shape[1] % size:
        raise ConfigError(
            f"got x of shape {list(x.shape)}, {x.dtype}, and heads of size {size}; expected rows of heads of an even "
            f"size, at most {_LARGEST}, in {' or '.join(map(str, DTYPES))}"
        )
    check("positions", positions, (x.shape[0],), torch.int64)
    return cast(Tensor, _Rotate.apply(x, positions, size, base))  # type: ignore[no-untyped-call]


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, positions: Tensor, size: int, base: float) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.settings = size, base
        return _turned(x, positions, size, base, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, None, None, None]:
        (positions,) = ctx.saved_tensors
        size, base = ctx.settings
        return _turned(d_out, positions, size, base, -1.0), None, None, None


def _turned(x: Tensor, positions: Tensor, size: int, base: float, sign: float) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    block = triton.next_power_of_2(size // 2)
    rows = min(16, max(1, _ELEMENTS // block))
    constants = {"HEADS": x.shape[1] // size, "HALF": size // 2, "ROWS": rows, "BLOCK": block}
    frequencies = rotary_frequencies(size, base, x.device)
    grid = (triton.cdiv(len(x), rows),)
    launch(_rotate, grid, x, positions, frequencies, out, len(x), sign, **constants)
    return out


@triton.jit(do_not_specialize=["rows", "sign"])
def _rotate(
    x,
    positions,
    frequencies,
    out,
    rows,
    sign,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, pair = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (pair < HALF)[None, :]
    position = tl.load(positions + row, mask=row < rows, other=0).to(tl.float32)
    angle = position[:, None] * tl.load(frequencies + pair, mask=pair < HALF, other=0)[None, :]
    cosine, sine = tl.cos(angle), sign * tl.sin(angle)
    index = row.to(tl.int64)[:, None] * (HEADS * HALF * 2) + pair[None, :]
    for _ in range(HEADS):
        first, second = load_tile(x, index, inside), load_tile(x, index + HALF, inside)
        tl.store(out + index, (first * cosine - second * sine).to(out.dtype.element_ty), mask=inside)
        tl.store(out + index + HALF, (second * cosine + first * sine).to(out.dtype.element_ty), mask=inside)
        index += HALF * 2
