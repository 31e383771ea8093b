"""Launching Triton kernels, and the device functions that they share.

Under Triton's interpreter (TRITON_INTERPRET=1, set before this module is imported) the same kernels run on CPU tensors;
that is how they are tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from minisbert.errors import ConfigError

from ..operations.protocol import supports_rows

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PARTIALS = 512  # programs that walk over all rows to sum columns: about four for each multiprocessor of a large device
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)

_ROUNDS = tl.constexpr(7)  # of Philox: the fewest that pass all tests of its authors (Salmon et al. 2011)


class Tile(NamedTuple):
    """Rows of its own and other rows that a program holds at once, and its warps and stages."""

    rows: int
    others: int
    warps: int
    stages: int


def launch(
    kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, stages: int = 3, **constants: Any
) -> None:
    """Launch a kernel on the device of its first tensor; an empty grid launches nothing.

    Args:
        kernel: decorated with `triton.jit`.
        grid: programs along each axis.
        arguments: tensors, numbers, and None for a tensor that is absent.
        warps: of each program.
        stages: depth of its software pipelines.
        constants: values of the compile-time constants.

    Raises:
        ConfigError: the tensor is not on a CUDA device.
    """
    device = next(value.device for value in arguments if isinstance(value, Tensor))
    if device.type != "cuda" and not INTERPRETED:
        raise ConfigError(f"got a tensor on {device}; Triton kernels expect a CUDA device: use minisbert.kernels")
    if 0 in grid:
        return
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        # Fused multiply-add has to be asked for since triton 3.10.
        kernel[grid](*arguments, num_warps=warps, num_stages=stages, enable_fp_fusion=True, **constants)


def row_block(dim: int, *, elements: int = 2048) -> dict[str, int]:
    """Constants and warps of a kernel whose programs take several whole rows.

    Args:
        dim: size of a row.
        elements: that a program holds at once: 2048 are 16 for each thread; a kernel that also sums columns takes 1024.
    """
    block = triton.next_power_of_2(dim)
    rows = min(16, max(1, elements // block))
    return {"DIM": dim, "ROWS": rows, "BLOCK": block, "warps": 8 if block > elements else 4}


def precision(dtype: torch.dtype) -> str:
    """Input precision of `tl.dot`: float32 as three TF32 products, exact to the last bits."""
    return "tf32x3" if dtype == torch.float32 else "ieee"


def check(name: str, value: Tensor, shape: tuple[int | None, ...], *dtypes: torch.dtype) -> None:
    """Require a contiguous tensor of a shape (None for any size) and of one of some dtypes.

    Raises:
        ConfigError: the tensor is something else.
    """
    fits = value.dim() == len(shape) and all(
        want is None or have == want for have, want in zip(value.shape, shape, strict=True)
    )
    if not fits or value.dtype not in dtypes or not value.is_contiguous():
        layout = "contiguous" if value.is_contiguous() else "not contiguous"
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise ConfigError(
            f"got {name} of shape {list(value.shape)}, {value.dtype}, {layout}; expected [{sizes}], contiguous, "
            f"{' or '.join(map(str, dtypes))}"
        )


def check_rows(name: str, value: Tensor) -> None:
    """Require a matrix that the kernels over whole rows take.

    Raises:
        ConfigError: the tensor is something else.
    """
    if value.dim() != 2 or not supports_rows(value.shape[1]) or value.dtype not in DTYPES:
        raise ConfigError(
            f"got {name} of shape {list(value.shape)}, {value.dtype}; expected rows of a multiple of 16, at most 4096, "
            f"in {' or '.join(map(str, DTYPES))}"
        )


def dropout_seed(dropout: float, seed: Tensor | None, device: torch.device) -> Tensor | None:
    """The seed given or a new one, int64 (1,); None where nothing is dropped.

    A new seed comes from the default generator of the device, so that a CUDA graph draws another one at each replay.

    Raises:
        ConfigError: the probability is out of range, or the seed has another shape or dtype.
    """
    if not 0 <= dropout < 1:
        raise ConfigError(f"got dropout {dropout}; expected at least 0 and below 1")
    if not dropout:
        return None
    if seed is None:
        return torch.randint(2**63 - 1, (1,), device=device)
    if seed.dtype != torch.int64 or seed.numel() != 1:
        raise ConfigError(f"got a seed of shape {list(seed.shape)}, {seed.dtype}; expected int64 of one element")
    return seed


def _interpreted_steps(start: Any, end: Any, step: int) -> Iterator[Any]:
    while start < end:
        yield start
        start += step


# Numbers of a pipelined loop in a kernel; the interpreter's `tl.range` does not take tensors.
steps = _interpreted_steps if INTERPRETED else tl.range


@triton.jit
def operand(x):
    """An operand of `tl.dot`: the interpreter multiplies bfloat16 wrongly."""
    return x.to(tl.float32) if INTERPRETED else x


@triton.jit
def load_tile(base, index, inside):
    """Elements as float32, 0 outside."""
    return tl.load(base + index, mask=inside, other=0).to(tl.float32)


@triton.jit
def tile(row, rows, column, DIM: tl.constexpr):
    """Indices of a tile of a matrix with rows of size DIM, and the mask of those inside: (rows, columns) each."""
    inside = (row < rows)[:, None] & (column < DIM)[None, :]
    return row.to(tl.int64)[:, None] * DIM + column[None, :], inside


@triton.jit
def keep(seed, rows, first_column, COLUMNS: tl.constexpr, dropout):
    """Mask of the elements of a tile that dropout keeps: bool, (rows, COLUMNS).

    One call of Philox gives the words of four neighbours in a row.

    Args:
        seed: int64, loaded.
        rows: (rows,), numbers of the rows.
        first_column: a multiple of 4.
        COLUMNS: a power of two, at least 4.
        dropout: probability of dropping.
    """
    groups = first_column // 4 + tl.arange(0, COLUMNS // 4)
    row = rows.to(tl.int32)[:, None] + tl.zeros_like(groups)[None, :]
    group = groups[None, :] + tl.zeros_like(row)
    zero = tl.zeros_like(row)
    a, b, c, d = tl.philox(seed, group, row, zero, zero, _ROUNDS)
    words = tl.join(tl.join(a, c), tl.join(b, d))  # (rows, groups, 2, 2), in the order a, b, c, d
    words = tl.reshape(words, (rows.shape[0], COLUMNS))
    return (words >> 8).to(tl.float32) * 5.9604644775390625e-08 >= dropout  # 2**-24


@triton.jit
def dropout_scale(seed, row, dropout, BLOCK: tl.constexpr):
    """Factor of each element, 0 or 1 / (1 - dropout): (rows, BLOCK); 1 without a seed."""
    if seed is None:
        return tl.full([1, 1], 1.0, tl.float32)
    else:
        return tl.where(keep(tl.load(seed), row, 0, BLOCK, dropout), 1 / (1 - dropout), 0.0)
