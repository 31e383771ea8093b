"""The one place where a fast version of an operation is chosen over its plain definition.

`plain.py` holds the definitions; the fast versions live in the folder `kernels/` beside this package and are drop-ins
for them. What runs is decided by device, dtype and what the machine offers, and by the mode: "auto" takes the fast
version where there is one, "reference" takes the plain definition always. The mode comes from the environment
variable MINISBERT_KERNELS, or from `with kernels.use("reference"):` for a block.
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
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor

from ..errors import ConfigError
from ..packing import PackedBatch
from . import plain
from .weights import EncoderWeights

Mode: TypeAlias = Literal["auto", "reference"]
_LARGE_MATRIX = 2**22  # similarities that are not worth holding: 16 MB in float32, and as much for their slopes
Linear: TypeAlias = Callable[[Tensor, Tensor, Tensor | None], Tensor]

# In a checkout the fast versions stand at the repository root; in an installation they are sub-packages of this one.
_CHECKOUT = Path(__file__).resolve().parents[2] / "kernels"
if _CHECKOUT.is_dir() and (_CHECKOUT.parent / "pyproject.toml").is_file():
    __path__.append(str(_CHECKOUT))

_override: ContextVar[Mode | None] = ContextVar("minisbert_kernels", default=None)


@contextmanager
def use(mode: Mode) -> Iterator[None]:
    """Choose the kernels for a block of code, in this thread only."""
    token = _override.set(_checked(mode))
    try:
        yield
    finally:
        _override.reset(token)


def current_mode() -> Mode:
    """The mode that holds here and now."""
    return _override.get() or _environment_mode()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x @ weight.T + bias`: (tokens, in) to (tokens, out)."""
    if x.device.type == "cpu" and fast() and (product := _cpu_linear()) and _exact(x, weight):
        return product(x, weight, bias)
    return plain.linear(x, weight, bias)


def attention(
    query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, *, heads: int, dropout: float, bias: Tensor | None
) -> Tensor:
    """Self-attention within each text: (tokens, dim) each, to (tokens, dim)."""
    triton = _triton("attention", query) if bias is None and batch.mask is None else None
    if triton is not None and triton.supports(query.shape[1], heads):
        qkv = torch.cat((query, key, value), dim=1)
        return cast(Tensor, triton.attention_qkv(qkv, batch, heads=heads, dropout=dropout))
    return plain.attention(query, key, value, batch, heads=heads, dropout=dropout, bias=bias)


def fused(hidden: Tensor, *, heads: int) -> ModuleType | None:
    """What stands around the products of a layer in one pass each, with derivatives, or None where it is not to be had.

    The result has `attention_qkv`, `add_norm` and `gelu`, as `plain` defines them. They work in float32, under
    autocast too, where `product` works in bfloat16. A GPU has all layers in one: `differentiable_encoder`.

    Args:
        hidden: what goes through the layer, (tokens, dim).
        heads: of its attention.
    """
    if hidden.dtype != torch.float32 or (torch.is_autocast_enabled("cpu") and not _half_products()):
        return None
    return _cpu_fused(hidden, heads)


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`linear` between the operations of `fused`: float32 in and out, and in bfloat16 between under autocast."""
    if torch.is_autocast_enabled("cpu"):
        module = importlib.import_module(".cpu_ops.linear", __name__)
        return cast(Tensor, module.half_linear(x, weight, bias))
    return linear(x, weight, bias)


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
    """One step of AdamW without weight decay on some rows of a table, in place."""
    operations: Any = _cpu_fused(param) or plain
    operations.adamw_rows_(param, grad, exp_avg, exp_avg_sq, rows, lr=lr, beta1=beta1, beta2=beta2, eps=eps, step=step)


def encoder(
    weights: EncoderWeights, *, quantized: bool = False
) -> Callable[[Tensor, Tensor, Tensor | None, PackedBatch], Tensor] | None:
    """The encoder laid out for inference, or None where nothing is faster than its modules.

    The result takes ids, positions and types of the tokens, (tokens,), and the batch, to (tokens, dim) in float32, on a
    GPU in the type of the weights.

    Args:
        weights: what to lay out.
        quantized: use products in int8.
    """
    if not fast():
        return None
    if triton := _triton("encoder", weights.word):
        return cast("Callable[..., Tensor] | None", triton.GpuEncoder(weights) if triton.supports(weights) else None)
    if weights.word.device.type != "cpu":
        return None
    module = importlib.import_module(".cpu_ops.inference", __name__)
    return cast("Callable[..., Tensor] | None", module.lay_out(weights, quantized=quantized))


def differentiable_encoder(weights: EncoderWeights) -> Callable[..., Tensor] | None:
    """An encoder as a whole with derivatives, or None where there is none but its modules.

    The result takes a batch whose positions are rows of the position table, `dtype` of the products and `dropouts`, to
    (tokens, dim).
    """
    triton = _triton("encoder", weights.word)
    if triton is None or not triton.supports(weights):
        return None
    return partial(triton.encode, weights)


def mean_pool(values: Tensor, batch: PackedBatch) -> Tensor:
    """Mean of the rows of each text: (tokens, dim) to (texts, dim), in float32 at least."""
    differentiable = torch.is_grad_enabled() and values.requires_grad
    operations: Any = plain
    if values.dtype == torch.float32 and not differentiable:
        operations = _cpu_fused(values) or plain
    if (triton := _triton("pooling", values)) and triton.supports(values.shape[1]):
        operations = triton
    return cast(Tensor, operations.mean_pool(values, batch))


def contrastive(queries: Tensor, candidates: Tensor) -> Callable[..., Tensor] | None:
    """`plain.contrastive` without the matrix of all pairs, or None where that matrix is small or has to be made."""
    if queries.shape[0] * candidates.shape[0] < _LARGE_MATRIX:
        return None
    triton = _triton("contrastive", queries)
    return triton.contrastive if triton is not None and triton.supports(queries.shape[1]) else None


def text_sum(values: Tensor, text_index: Tensor, texts: int) -> Tensor:
    """Sum of the rows of each text: (tokens, dim) to (texts, dim), in float32 at least."""
    return plain.text_sum(values, text_index, texts)


def _cpu_fused(vectors: Tensor, heads: int = 1) -> ModuleType | None:
    """The fused operations, where they are built, wanted, and take such vectors: (rows, dim)."""
    if vectors.device.type != "cpu" or not fast():
        return None
    module = importlib.import_module(".cpu_ops.fused", __name__)
    return module if module.supports(vectors.shape[1], heads) and module.available() else None


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


def on_gpu(values: Tensor) -> bool:
    """Whether these are where Triton kernels run."""
    return values.device.type == "cuda"


def _half_products() -> bool:
    """Whether autocast asks for bfloat16, and the processor has it."""
    module = importlib.import_module(".cpu_ops.linear", __name__)
    return torch.get_autocast_dtype("cpu") == torch.bfloat16 and cast(bool, module.bfloat16_available())


def fast() -> bool:
    """Whether fast versions may be taken here and now."""
    # torch.compile cannot trace the mode; it writes its own kernels anyway.
    return not torch.compiler.is_compiling() and current_mode() == "auto"


@cache
def _environment_mode() -> Mode:
    return _checked(os.environ.get("MINISBERT_KERNELS", "auto"))


def _checked(mode: str) -> Mode:
    if mode not in ("auto", "reference"):
        raise ConfigError(f"got kernels {mode!r} (MINISBERT_KERNELS); expected auto or reference")
    return cast(Mode, mode)


def _exact(x: Tensor, weight: Tensor) -> bool:
    # Under autocast the plain definition is cast by torch; a kernel would have to repeat its rules.
    return x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


@cache
def _cpu_linear() -> Linear | None:
    module = importlib.import_module(".cpu_ops.linear", __name__)
    return cast(Linear, module.linear) if module.available() else None
