"""The door to the kernels: one place chooses which implementation of an operation runs.

The kernels are in the folder `kernels/` at the repository's root: definitions in `operations`, fast versions of them in
`cpu_ops` and `triton_ops`. They are imported as sub-packages of this package. What runs is chosen by device, dtype and
what the machine offers, and by the mode: "auto" takes the fastest implementation, "reference" the definitions. The mode
is read from the environment variable MINISBERT_KERNELS, or set by `with kernels.use("reference"):` for a block.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import torch
from torch import Tensor

from ..errors import ConfigError
from ..packing import PackedBatch, PaddedBatch
from .weights import EncoderWeights

# In a checkout the kernels are at the repository's root; in an installation they are sub-packages of this one.
_CHECKOUT = Path(__file__).resolve().parents[2] / "kernels"
if _CHECKOUT.is_dir() and (_CHECKOUT.parent / "pyproject.toml").is_file():
    __path__.append(str(_CHECKOUT))

if TYPE_CHECKING:  # where type checkers find them
    from kernels.cpu_ops import fused, int8, native, onednn
    from kernels.operations import plain
    from kernels.operations.padded import Padded
    from kernels.operations.plain import Plain
    from kernels.operations.protocol import Activation, AttentionSettings, Operations
    from kernels.operations.quantized import QuantizedLinear, quantize_rows
else:
    from .cpu_ops import fused, int8, native, onednn
    from .operations import plain
    from .operations.padded import Padded
    from .operations.plain import Plain
    from .operations.protocol import Activation, AttentionSettings, Operations
    from .operations.quantized import QuantizedLinear, quantize_rows

__all__ = [
    "Activation",
    "AttentionSettings",
    "Mode",
    "Operations",
    "QuantizedLinear",
    "adamw_rows_",
    "choose",
    "contrastive",
    "current_mode",
    "native",
    "on_gpu",
    "plain",
    "quantize_rows",
    "use",
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


def choose(values: Tensor, batch: PackedBatch, *, compiled: bool = False, quantized: bool = False) -> Operations:
    """Choose the operations of one forward pass.

    Args:
        values: weights or hidden states of the pass, for their device and dtype.
        batch: the batch of the pass.
        compiled: the caller compiles parts of the pass with torch.compile, which traces plain PyTorch.
        quantized: the weights of the products are int8.
    """
    if isinstance(batch, PaddedBatch):
        return Padded(batch)
    if not fast():
        return Plain()
    if on_gpu(values):
        return _TritonAttention()
    if values.device.type != "cpu" or compiled:
        return Plain()
    autocast = torch.is_autocast_enabled("cpu")
    inference = not torch.is_grad_enabled() and not autocast
    if quantized and inference and int8.available():
        return int8.Int8()
    if values.dtype == torch.float32:
        half = autocast and torch.get_autocast_dtype("cpu") == torch.bfloat16 and onednn.bfloat16_available()
        if fused.available() and (half or not autocast):
            return fused.Fused(half=half)
        if onednn.available() and not autocast:
            return onednn.OneDnn()
    if values.dtype == torch.bfloat16 and inference and onednn.bfloat16_available():
        return onednn.OneDnnHalf()
    return Plain()


def adamw_rows_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    rows: Tensor,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
) -> None:
    """One step of AdamW without weight decay on some rows of a table on the CPU, in place; see `plain.adamw_rows_`."""
    takes = fast() and param.device.type == "cpu" and fused.supports(param.shape[1]) and fused.available()
    operation = fused.adamw_rows_ if takes else plain.adamw_rows_
    operation(param, grad, exp_avg, exp_avg_sq, rows, lr=lr, beta1=beta1, beta2=beta2, eps=eps, step=step)


def contrastive(queries: Tensor, candidates: Tensor) -> Callable[..., Tensor] | None:
    """Return a kernel for `plain.contrastive` that makes no matrix of all pairs, or None if that matrix is small."""
    if queries.shape[0] * candidates.shape[0] < _LARGE_MATRIX:
        return None
    triton = _triton("contrastive", queries)
    return triton.contrastive if triton is not None and triton.supports(queries.shape[1]) else None


def fast() -> bool:
    """Return True if kernels may run here and now."""
    # torch.compile cannot trace the mode; it writes its own kernels anyway.
    return not torch.compiler.is_compiling() and current_mode() == "auto"


def on_gpu(values: Tensor) -> bool:
    """Return True if `values` are where Triton kernels run."""
    return values.device.type == "cuda"


@cache
def _environment_mode() -> Mode:
    return _checked(os.environ.get("MINISBERT_KERNELS", "auto"))


def _checked(mode: str) -> Mode:
    if mode not in ("auto", "reference"):
        raise ConfigError(f"got kernels {mode!r} (MINISBERT_KERNELS); expected auto or reference")
    return cast(Mode, mode)


# Until the Triton kernels and the encoder in C++ follow the protocol.


class _TritonAttention(Plain):
    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        batch: PackedBatch,
        settings: AttentionSettings,
        *,
        dropout: float,
        bias: Tensor | None,
    ) -> Tensor:
        """See `Plain`."""
        triton = _triton("attention", query) if bias is None and settings.bidirectional else None
        if triton is not None and triton.supports(query.shape[1], settings.heads):
            qkv = torch.cat((query, key, value), dim=1)
            return cast(Tensor, triton.attention_qkv(qkv, batch, heads=settings.heads, dropout=dropout))
        return super().attend(query, key, value, batch, settings, dropout=dropout, bias=bias)

    def mean_pool(self, values: Tensor, batch: PackedBatch) -> Tensor:
        """See `Operations`."""
        if (triton := _triton("pooling", values)) and triton.supports(values.shape[1]):
            return cast(Tensor, triton.mean_pool(values, batch))
        return super().mean_pool(values, batch)


def encoder(weights: EncoderWeights) -> Callable[[Tensor, Tensor, Tensor | None, PackedBatch], Tensor] | None:
    """The encoder laid out for inference on a GPU, or None where its modules are as fast."""
    triton = _triton("encoder", weights.word)
    return cast("Callable[..., Tensor]", triton.GpuEncoder(weights)) if triton and triton.supports(weights) else None


def differentiable_encoder(weights: EncoderWeights) -> Callable[..., Tensor] | None:
    """The encoder as one operation with gradients, or None where there is none but its modules."""
    triton = _triton("encoder", weights.word)
    if triton is None or not triton.supports(weights):
        return None
    return partial(triton.encode, weights)


def _triton(name: str, values: Tensor) -> ModuleType | None:
    """The Triton kernels of that name, where they take such values."""
    if not on_gpu(values) or values.dtype == torch.float64 or not fast():
        return None
    return _triton_module(name)


@cache
def _triton_module(name: str) -> ModuleType | None:
    if importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module(f".triton_ops.{name}", __name__)
