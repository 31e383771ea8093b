"""What stands around the matrix products of an encoder, in one pass each: the faces of `native/fused.cpp`.

Drop-ins for the definitions in `minisbert.kernels.plain`, for contiguous float32 tensors of the CPU. They need the
library of `build.py`. Results do not depend on the number of threads. Dropout draws one seed for each call from torch's
default generator: `torch.manual_seed` and a saved state of that generator govern it.

One layer of an encoder, the weights of query, key and value being one of (3 * dim, dim):

    qkv = linear(hidden, qkv_weight, qkv_bias)
    attended = attention_qkv(qkv, batch, heads=..., dropout=...)
    hidden = add_norm(linear(attended, ...), hidden, ..., dropout=...)
    raised = gelu(linear(hidden, ...))
    hidden = add_norm(linear(raised, ...), hidden, ..., dropout=...)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from minisbert.errors import ConfigError, InputError
from minisbert.packing import PackedBatch

from . import build


def available() -> bool:
    """Whether the library is built for this machine."""
    return build.library() is not None


def supports(dim: int, heads: int = 1) -> bool:
    """Whether the operations take token vectors of size `dim`, cut into `heads`."""
    return 0 < dim <= 4096 and dim % heads == 0 and dim // heads % 16 == 0 and (heads == 1 or dim // heads <= 128)


def attention_qkv(qkv: Tensor, batch: PackedBatch, *, heads: int, dropout: float = 0.0) -> Tensor:
    """Self-attention within each text: (tokens, 3 * dim), queries, keys and values side by side, to (tokens, dim)."""
    _check("qkv", qkv, None, None, torch.float32)
    if qkv.shape[1] % 3 or not supports(qkv.shape[1] // 3, heads) or qkv.shape[1] // 3 // heads > 128:
        raise ConfigError(
            f"got {qkv.shape[1]} columns for {heads} heads; expected three times heads of a multiple of 16, at most 128"
        )
    _check_texts(batch.offsets, qkv.shape[0])
    drop = _dropout(dropout)
    if torch.is_grad_enabled() and qkv.requires_grad:
        return cast(Tensor, _Attention.apply(qkv, batch.offsets, heads, drop))  # type: ignore[no-untyped-call]
    return _attention(qkv, batch.offsets, heads, drop, None)


def add_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, *, eps: float, dropout: float = 0.0
) -> Tensor:
    """`layer_norm(dropout(x) + residual)`, (tokens, dim) each, in float32."""
    tokens, dim = x.shape
    _check("x", x, None, dim, torch.float32)
    _check_norm(dim, weight, bias)
    if residual is not None:
        _check("residual", residual, tokens, dim, torch.float32)
    drop = _dropout(dropout)
    inputs = (x, weight, bias) if residual is None else (x, residual, weight, bias)
    if torch.is_grad_enabled() and any(value.requires_grad for value in inputs):
        return cast(Tensor, _AddNorm.apply(x, residual, weight, bias, eps, drop))  # type: ignore[no-untyped-call]
    return _add_norm(x, residual, weight, bias, eps, drop)


def gelu(x: Tensor) -> Tensor:
    """`x * (1 + erf(x / sqrt(2))) / 2` of every element, float32."""
    _check("x", x, None, None, torch.float32)
    if torch.is_grad_enabled() and x.requires_grad:
        return cast(Tensor, _Gelu.apply(x))  # type: ignore[no-untyped-call]
    return _gelu(x)


def mean_pool(values: Tensor, batch: PackedBatch, *, normalize: bool = False) -> Tensor:
    """Mean of the rows of each text, of length 1 if asked: (tokens, dim) to (texts, dim) in float32, no derivative."""
    tokens, dim = values.shape
    _check("values", values, None, dim, torch.float32)
    _check_dim(dim)
    _check_texts(batch.offsets, tokens)
    out = torch.empty(batch.offsets.shape[0] - 1, dim)
    _function("mean_pool")(
        values.data_ptr(), batch.offsets.data_ptr(), out.shape[0], dim, out.data_ptr(), int(normalize)
    )
    return out


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
    """One step of AdamW without weight decay on some rows of a float32 table, in place; torch's own to the bit."""
    count, dim = grad.shape
    _check_dim(dim)
    _check("rows", rows, count, None, torch.int64)
    _check("grad", grad, count, dim, torch.float32)
    for name, table in (("param", param), ("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)):
        _check(name, table, param.shape[0], dim, torch.float32)
    fine = _function("adamw_rows")(
        *(param.data_ptr(), grad.data_ptr(), exp_avg.data_ptr(), exp_avg_sq.data_ptr(), rows.data_ptr()),
        *(count, param.shape[0], dim, lr, beta1, beta2, eps, step),
    )
    if not fine:
        raise InputError(f"got row numbers that do not rise; expected each of 0 to {param.shape[0] - 1} once at most")


def dropout_mask(seed: int, first_row: int, rows: int, columns: int, dropout: float) -> Tensor:
    """Which elements the operations keep under `seed`: bool, (rows, columns).

    Rows are tokens and columns dimensions in `add_norm`; in `attention_qkv` rows are token * heads + head and columns
    places in the text.
    """
    out = torch.empty(rows, columns, dtype=torch.bool)
    threshold = _dropout(dropout, seed=seed).threshold
    _function("dropout_mask")(seed, first_row, rows, columns, threshold, out.data_ptr())
    return out


def draw_seed() -> int:
    """The next seed of dropout, from torch's default generator."""
    return int(torch.randint(2**63 - 1, (1,)).item())


class _Dropout(NamedTuple):
    threshold: int
    scale: float
    seed: int


def _dropout(probability: float, seed: int | None = None) -> _Dropout:
    if not 0 <= probability < 1:
        raise ConfigError(f"got dropout {probability}; expected at least 0 and below 1")
    threshold = min(round(probability * 2**32), 2**32 - 1)
    drawn = (draw_seed() if probability else 0) if seed is None else seed
    return _Dropout(threshold, 1 / (1 - probability), drawn)


def _attention(qkv: Tensor, offsets: Tensor, heads: int, drop: _Dropout, lse: Tensor | None) -> Tensor:
    tokens, dim = qkv.shape[0], qkv.shape[1] // 3
    out = torch.empty(tokens, dim)
    _function("attention_forward")(
        *(qkv.data_ptr(), out.data_ptr(), offsets.data_ptr(), offsets.shape[0] - 1),
        *(heads, dim // heads, 1 / math.sqrt(dim // heads), *drop, _pointer(lse)),
    )
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, offsets: Tensor, heads: int, drop: _Dropout) -> Tensor:
        lse = torch.empty(qkv.shape[0], heads)
        out = _attention(qkv, offsets, heads, drop, lse)
        ctx.save_for_backward(qkv, offsets, lse, out)
        ctx.heads, ctx.drop = heads, drop
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        qkv, offsets, lse, out = ctx.saved_tensors
        given = grads[0].contiguous()
        d_qkv = torch.empty_like(qkv)
        head_dim = qkv.shape[1] // 3 // ctx.heads
        _function("attention_backward")(
            *(qkv.data_ptr(), out.data_ptr(), given.data_ptr(), lse.data_ptr(), d_qkv.data_ptr()),
            *(offsets.data_ptr(), offsets.shape[0] - 1, ctx.heads, head_dim, 1 / math.sqrt(head_dim), *ctx.drop),
        )
        return d_qkv, None, None, None


def _add_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    drop: _Dropout,
    *,
    xhat: Tensor | None = None,
    rstd: Tensor | None = None,
) -> Tensor:
    out = torch.empty(x.shape)
    _function("add_norm_forward")(
        *(*x.shape, x.data_ptr(), _pointer(residual), weight.data_ptr(), bias.data_ptr(), eps),
        *(out.data_ptr(), _pointer(xhat), _pointer(rstd), *drop),
    )
    return out


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, drop: _Dropout
    ) -> Tensor:
        xhat, rstd = torch.empty_like(x), torch.empty(x.shape[0])
        out = _add_norm(x, residual, weight, bias, eps, drop, xhat=xhat, rstd=rstd)
        ctx.save_for_backward(xhat, rstd, weight)
        ctx.drop = drop
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        xhat, rstd, weight = ctx.saved_tensors
        given = grads[0].contiguous()
        need_x, need_residual = ctx.needs_input_grad[:2]
        dropped = bool(ctx.drop.threshold)
        # Without dropout both slopes are the same.
        d_sum = torch.empty_like(xhat) if need_residual or not dropped else None
        d_x = torch.empty_like(xhat) if need_x and dropped else None
        d_weight, d_bias = torch.empty_like(weight), torch.empty_like(weight)
        _function("add_norm_backward")(
            *(*xhat.shape, given.data_ptr(), xhat.data_ptr(), rstd.data_ptr(), weight.data_ptr()),
            *(_pointer(d_x), _pointer(d_sum), d_weight.data_ptr(), d_bias.data_ptr(), *ctx.drop),
        )
        slopes = (d_x if dropped else d_sum, d_sum, d_weight, d_bias)
        return (
            *(slope if need else None for slope, need in zip(slopes, ctx.needs_input_grad, strict=False)),
            None,
            None,
        )


def _gelu(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    _function("gelu_forward")(x.numel(), x.data_ptr(), out.data_ptr())
    return out


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _gelu(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        given = grads[0].contiguous()
        d_x = torch.empty_like(x)
        _function("gelu_backward")(x.numel(), x.data_ptr(), given.data_ptr(), d_x.data_ptr())
        return d_x


def _function(name: str) -> Any:
    return getattr(build.required(), name)


def _pointer(value: Tensor | None) -> int | None:
    return None if value is None else value.data_ptr()


def _check(name: str, value: Tensor, rows: int | None, columns: int | None, *dtypes: torch.dtype) -> None:
    wrong = (rows is not None and value.shape[0] != rows) or (columns is not None and value.shape[-1] != columns)
    if wrong or value.dtype not in dtypes or value.device.type != "cpu" or not value.is_contiguous():
        layout = "contiguous" if value.is_contiguous() else "not contiguous"
        raise ConfigError(
            f"got {name} of shape {list(value.shape)}, {value.dtype}, on {value.device}, {layout}; expected "
            f"{' or '.join(map(str, dtypes))} on the cpu, contiguous, {rows or 'any'} rows of {columns or 'any'}"
        )


def _check_dim(dim: int) -> None:
    if not supports(dim):
        raise ConfigError(f"got vectors of size {dim}; expected a multiple of 16, at most 4096")


def _check_norm(dim: int, weight: Tensor, bias: Tensor) -> None:
    _check_dim(dim)
    _check("weight", weight, dim, None, torch.float32)
    _check("bias", bias, dim, None, torch.float32)


def _check_texts(offsets: Tensor, tokens: int) -> None:
    _check("offsets", offsets, None, None, torch.int32)
    if int(offsets[-1]) != tokens or int(offsets[0]):
        raise ConfigError(f"got offsets up to {int(offsets[-1])}; expected them to end at the {tokens} tokens")
