"""How the operations on rows of a matrix cut it into blocks, and which matrices they take."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from minisbert.errors import ConfigError

from .launch import DTYPES, FUSION, Variant, check_dropout, draw_seed, power_of_two

PARTIALS = 512  # programs that walk over all rows to sum them: about four for each multiprocessor of a large device


class RowBlock(NamedTuple):
    """What one program takes: so many rows, whole, in blocks of `columns`, a power of two."""

    rows: int
    columns: int
    warps: int

    def options(self, dim: int) -> dict[str, Any]:
        """The constants of a kernel over such blocks, and how it is launched."""
        return {**self.constants(dim), "num_warps": self.warps, **FUSION}

    def constants(self, dim: int) -> dict[str, int]:
        """The constants of a kernel over such blocks."""
        return {"DIM": dim, "ROWS": self.rows, "BLOCK": self.columns}


def supports(dim: int) -> bool:
    """Whether the operations take rows of size `dim`."""
    return 0 < dim <= 4096 and dim % 16 == 0


def row_block(dim: int, *, sums: bool = False) -> RowBlock:
    """Short rows go several to a program, so that each thread has 16 elements; 8 where columns are summed as well."""
    columns, size = power_of_two(dim), 1024 if sums else 2048
    return RowBlock(min(16, max(1, size // columns)), columns, 8 if columns > size else 4)


def variant(kernel: Any, dim: int, block: RowBlock, types: dict[str, str | None]) -> Variant:
    """A kernel over rows of size `dim` as it is compiled for pointers of such types, None for what is not given."""
    sizes = dict.fromkeys(("rows", "tokens", "words", "places", "kinds"), "i32")
    numbers = {**sizes, "eps": "fp32", "dropout": "fp32"}
    known = {**types, **{name: kind for name, kind in numbers.items() if name in kernel.arg_names}}
    return Variant(
        kernel,
        {name: kind for name, kind in known.items() if kind is not None},
        {**{name: None for name, kind in known.items() if kind is None}, **block.constants(dim)},
        block.warps,
        3,
    )


def check_matrix(name: str, value: Tensor) -> None:
    """Hold a matrix to a size and type that the kernels take.

    Raises:
        ConfigError: it is something else.
    """
    if value.dim() != 2 or not supports(value.shape[1]) or value.dtype not in DTYPES:
        raise ConfigError(
            f"got {name} of shape {list(value.shape)}, {value.dtype}; expected rows of a multiple of 16, at most 4096, "
            f"in {' or '.join(map(str, DTYPES))}"
        )


def seed_of(dropout: float, seed: Tensor | None, device: torch.device) -> Tensor | None:
    """The seed given, or drawn where none is; None where nothing is dropped.

    Raises:
        ConfigError: the probability or the seed is none.
    """
    check_dropout(dropout)
    if not dropout:
        return None
    if seed is None:
        return draw_seed(device)
    if seed.dtype != torch.int64 or seed.numel() != 1:
        raise ConfigError(f"got a seed of shape {list(seed.shape)}, {seed.dtype}; expected int64 of one element")
    return seed


@triton.jit
def load_tile(base, place, inside):
    """Elements as float32, 0 outside."""
    return tl.load(base + place, mask=inside, other=0).to(tl.float32)


@triton.jit
def standardize(total, column, eps, DIM: tl.constexpr):
    """Rows of mean 0 and variance 1, 0 beyond DIM, with the mean and the inverse deviation of each.

    Args:
        total: float32, (rows, columns), 0 beyond DIM.
        column: number of each column.
        eps: added to the variance.
        DIM: columns that count.
    """
    mean = tl.sum(total, 1) / DIM
    centred = tl.where((column < DIM)[None, :], total - mean[:, None], 0.0)
    rstd = 1 / tl.sqrt(tl.sum(centred * centred, 1) / DIM + eps)
    return centred * rstd[:, None], mean, rstd


@triton.jit
def norm_slope(slope, normed, rstd, DIM: tl.constexpr):
    """What `standardize` took, from the slope of what it gave: (rows, columns), of no meaning beyond DIM."""
    along = tl.sum(slope * normed, 1) / DIM
    mean = tl.sum(slope, 1) / DIM
    return (slope - mean[:, None] - normed * along[:, None]) * rstd[:, None]
