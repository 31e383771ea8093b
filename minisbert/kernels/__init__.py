"""The door to the kernels: one place chooses which implementation of an operation runs.

The kernels are in the folder `kernels/` at the repository's root: definitions in `operations`, fast versions of them in
`cpu_ops` and `triton_ops`. They are imported as sub-packages of this package. What runs is chosen by device, dtype and
what the machine offers, and by the mode: "auto" takes the fastest implementation, "reference" the definitions. The mode
is read from the environment variable MINISBERT_KERNELS, or set by `with kernels.use("reference"):` for a block.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import torch
from torch import Tensor

from ..errors import ConfigError
from ..packing import PackedBatch, PaddedBatch

# In a checkout the kernels are at the repository's root; in an installation they are sub-packages of this one.
_CHECKOUT = Path(__file__).resolve().parents[2] / "kernels"
if _CHECKOUT.is_dir() and (_CHECKOUT.parent / "pyproject.toml").is_file():
    __path__.append(str(_CHECKOUT))

if TYPE_CHECKING:  # where type checkers find them
    from kernels.cpu_ops import fused, library, native, onednn, training
    from kernels.cpu_ops.native import submodules
    from kernels.operations import plain
    from kernels.operations.memory import TrainingMemory
    from kernels.operations.plain import AdamWStep, Plain
    from kernels.operations.protocol import (
        AttentionSettings,
        AttentionSpec,
        LayerInTraining,
        Operations,
        Projections,
        Tables,
        activation_name,
    )
    from kernels.operations.quantized import QuantizedLinear, input_factors
else:
    from .cpu_ops import fused, library, native, onednn, training
    from .cpu_ops.native import submodules
    from .operations import plain
    from .operations.memory import TrainingMemory
    from .operations.plain import AdamWStep, Plain
    from .operations.protocol import (
        AttentionSettings,
        AttentionSpec,
        LayerInTraining,
        Operations,
        Projections,
        Tables,
        activation_name,
    )
    from .operations.quantized import QuantizedLinear, input_factors

__all__ = [
    "AdamWStep",
    "AttentionSettings",
    "AttentionSpec",
    "LayerInTraining",
    "Mode",
    "Operations",
    "Projections",
    "QuantizedLinear",
    "Tables",
    "TrainingMemory",
    "activation_name",
    "adamw_rows_",
    "choose",
    "contrastive",
    "current_mode",
    "input_factors",
    "library",
    "native",
    "on_gpu",
    "onednn",
    "plain",
    "submodules",
    "use",
    "whole_encoder_may_run",
]

Mode: TypeAlias = Literal["auto", "reference"]
_LARGE_MATRIX = 2**22  # similarities that are not worth holding: 16 MB in float32, and as much for their gradients

_override: ContextVar[Mode | None] = ContextVar("minisbert_kernels", default=None)


@contextmanager
def use(mode: Mode) -> Iterator[None]:
    """Set the mode for a block of code, in this thread only."""
    token = _override.set(_checked(mode))
    try:
        yield
    finally:
        _override.reset(token)


def current_mode() -> Mode:
    """Return the mode of this thread."""
    return _override.get() or _environment_mode()


def choose(values: Tensor, batch: PackedBatch | None = None, *, compiled: bool = False) -> Operations:
    """Choose the operations of one forward pass.

    Args:
        values: weights or hidden states of the pass, for their device and dtype.
        batch: the batch of the pass; by default a packed one.
        compiled: the caller compiles parts of the pass with torch.compile, which traces plain PyTorch.
    """
    if isinstance(batch, PaddedBatch):
        if TYPE_CHECKING:
            from kernels.operations.padded import Padded
        else:
            from .operations.padded import Padded
        return Padded(batch)
    if not fast():
        return Plain()
    if _triton_takes(values):
        if TYPE_CHECKING:
            from kernels.triton_ops import operations as triton
        else:
            from .triton_ops import operations as triton
        device = values.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return triton.TritonAttention() if compiled else triton.Triton(dtype)
    if values.device.type != "cpu" or compiled:
        return Plain()
    autocast = torch.is_autocast_enabled("cpu")
    if values.dtype == torch.float32:
        half = autocast and torch.get_autocast_dtype("cpu") == torch.bfloat16 and onednn.bfloat16_available()
        if fused.available() and (half or not autocast):
            return training.Whole(half=half)
        if not autocast:
            return onednn.OneDnn()
    if values.dtype == torch.bfloat16 and onednn.bfloat16_available() and not (autocast or torch.is_grad_enabled()):
        return onednn.OneDnnHalf()
    return Plain()


def whole_encoder_may_run(values: Tensor, batch: PackedBatch) -> bool:
    """Return True if an implementation of the whole encoder may run this pass: packed inference without autocast.

    Args:
        values: weights of the pass, for their device.
        batch: the batch of the pass.
    """
    other = torch.is_grad_enabled() or torch.is_autocast_enabled(values.device.type) or isinstance(batch, PaddedBatch)
    return fast() and not other


def adamw_rows_(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, rows: Tensor, to: AdamWStep) -> None:
    """Update some rows of a table in place; see `plain.adamw_rows_`."""
    takes = fast() and param.device.type == "cpu" and fused.supports(param.shape[1]) and fused.available()
    operation = fused.adamw_rows_ if takes else plain.adamw_rows_
    operation(param, grad, exp_avg, exp_avg_sq, rows, to)


def contrastive(queries: Tensor, candidates: Tensor) -> Callable[..., Tensor] | None:
    """Return a kernel for `plain.contrastive` that makes no matrix of all pairs, or None if that matrix is small."""
    if queries.shape[0] * candidates.shape[0] < _LARGE_MATRIX or not (fast() and _triton_takes(queries)):
        return None
    if TYPE_CHECKING:
        from kernels.triton_ops import contrastive
    else:
        from .triton_ops import contrastive
    return contrastive.contrastive if contrastive.supports(queries.shape[1]) else None


def fast() -> bool:
    """Return True if kernels may run here and now."""
    # torch.compile cannot trace the mode; it writes its own kernels anyway.
    return not torch.compiler.is_compiling() and current_mode() == "auto"


def on_gpu(values: Tensor) -> bool:
    """Return True if `values` are where Triton kernels run."""
    return values.device.type == "cuda"


def _triton_takes(values: Tensor) -> bool:
    return on_gpu(values) and values.dtype in (torch.float32, torch.float16, torch.bfloat16) and _triton_installed()


@cache
def _triton_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@cache
def _environment_mode() -> Mode:
    return _checked(os.environ.get("MINISBERT_KERNELS", "auto"))


def _checked(mode: str) -> Mode:
    if mode not in ("auto", "reference"):
        raise ConfigError(f"got kernels {mode!r} (MINISBERT_KERNELS); expected auto or reference")
    return cast(Mode, mode)
