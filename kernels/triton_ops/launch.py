"""What the Triton kernels share: how they are described for the compiler, launched, and how they draw dropout.

Under Triton's interpreter (TRITON_INTERPRET=1, set before this module is imported) the same kernels work on tensors of
the CPU, which is how they are tested where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from minisbert.errors import ConfigError

DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
INTERPRETED: bool = triton.knobs.runtime.interpret

# Of each launch: products and sums in one instruction, which triton 3.10 does only where asked for.
FUSION = {"enable_fp_fusion": True}

# Inside kernels, which see only constants of this type.
_INTERPRETED = tl.constexpr(INTERPRETED)
_ROUNDS = tl.constexpr(7)  # of Philox: the fewest that pass all tests of its authors (Salmon et al. 2011)


class Variant(NamedTuple):
    """One specialisation of a kernel, enough to compile it without a device.

    Attributes:
        kernel: decorated with triton.jit.
        signature: type of each argument that is no constant, such as "*bf16", "i32", "fp32".
        constants: value of each constant.
        warps: warps of one program.
        stages: depth of its pipelines.
    """

    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    warps: int
    stages: int

    @property
    def name(self) -> str:
        """Kernel, types and constants in one line."""
        types = sorted(
            {kind.lstrip("*") for kind in self.signature.values() if kind.startswith("*")} & {*DTYPES.values()}
        )
        constants = " ".join(f"{name}={value}" for name, value in self.constants.items())
        return f"{self.kernel.__name__} {'/'.join(types)} {constants} warps={self.warps} stages={self.stages}"


def options(warps: int, stages: int = 1) -> dict[str, Any]:
    """What a launch says beside its arguments."""
    return {"num_warps": warps, "num_stages": stages, **FUSION}


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << max(number - 1, 0).bit_length()


def ceil_div(number: int, size: int) -> int:
    """Blocks of `size` that hold `number`."""
    return -(-number // size)


def precision(dtype: torch.dtype) -> str:
    """How `tl.dot` multiplies: float32 as three products on tensor cores, exact to the last bits."""
    return "tf32x3" if dtype == torch.float32 else "ieee"


def on_device(value: Tensor) -> AbstractContextManager[Any]:
    """Launch on the device of `value`.

    Raises:
        ConfigError: it is not a CUDA device.
    """
    if value.is_cuda:
        return torch.cuda.device(value.device)
    if not INTERPRETED:
        raise ConfigError(f"got a tensor on {value.device}; Triton kernels expect a CUDA device: use minisbert.kernels")
    return nullcontext()


def check(name: str, value: Tensor, shape: tuple[int | None, ...], *dtypes: torch.dtype) -> None:
    """Hold an argument to a shape (None for any size) and to one of some dtypes, contiguous.

    Raises:
        ConfigError: it is something else.
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


def check_dropout(dropout: float) -> None:
    """Hold a probability of dropping to 0 up to but not including 1.

    Raises:
        ConfigError: it is something else.
    """
    if not 0 <= dropout < 1:
        raise ConfigError(f"got dropout {dropout}; expected at least 0 and below 1")


def draw_seed(device: torch.device) -> Tensor:
    """A seed of dropout, int64 (1,), from the device's default generator, which a CUDA graph draws anew each time."""
    return torch.randint(2**63 - 1, (1,), device=device)


def dropout_mask(seed: Tensor, rows: int, columns: int, dropout: float, *, first_row: int = 0) -> Tensor:
    """Which elements the operations keep under `seed`: bool, (rows, columns).

    In `attention_qkv` rows are token * heads + head and columns places in the text; elsewhere rows are tokens and
    columns dimensions.
    """
    out = torch.empty(rows, columns, dtype=torch.int8, device=seed.device)
    if out.numel():
        with on_device(seed):
            _mask[(ceil_div(rows, 16), ceil_div(columns, 64))](
                seed, out, rows, columns, first_row, dropout, ROWS=16, COLUMNS=64, **FUSION
            )
    return out.bool()


@triton.jit
def operand(x):
    """A factor of `tl.dot`: the interpreter multiplies bfloat16 wrongly."""
    if _INTERPRETED:
        return x.to(tl.float32)
    else:
        return x


@triton.jit
def keep(seed, rows, first_column, COLUMNS: tl.constexpr, dropout):
    """Which elements of a tile dropout keeps: bool, (rows, COLUMNS).

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


@triton.jit(do_not_specialize=["rows", "columns", "first_row"], do_not_specialize_on_alignment=["seed"])
def _mask(seed, out, rows, columns, first_row, dropout, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * COLUMNS
    column = first + tl.arange(0, COLUMNS)
    kept = keep(tl.load(seed), first_row + row, first, COLUMNS, dropout)
    place = row.to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(out + place, kept.to(tl.int8), mask=(row < rows)[:, None] & (column < columns)[None, :])
