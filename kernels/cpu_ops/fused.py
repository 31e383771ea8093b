"""C++ kernels for what an encoder computes between its matrix products, one pass each: `native/fused.cpp`.

The functions have the signatures of their definitions in `operations/plain.py`, for contiguous float32 tensors of the
CPU; they need the library of `library.py`. `Fused` is the protocol over them. Results do not depend on the number of
threads. Dropout draws one seed for each call from torch's default generator: `torch.manual_seed` and a saved state of
that generator govern it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minisbert.errors import ConfigError, InputError
from minisbert.packing import PackedBatch

from ..operations.plain import AdamWStep, Plain
from ..operations.protocol import Activation, AttentionSpec, Projections, Tables, norm_fits, supports_rows
from . import library, onednn
from .library import check, check_texts, pointer

_LARGEST_HEAD = 128  # that the attention kernel takes


def available() -> bool:
    """Return True if the library runs on this machine."""
    return library.functions() is not None


class Fused(onednn.OneDnn):
    """The operations with C++ kernels, differentiable, for weights in float32.

    What no kernel takes goes the way of `OneDnn` or `Plain`: modules that are not as built, other sizes, attention with
    a bias, other activations.

    Args:
        half: compute products in bfloat16, as autocast asks for; everything else stays in float32.
    """

    def __init__(self, *, half: bool = False) -> None:
        self._half = half

    def linear(self, x: Tensor, module: nn.Module) -> Tensor:
        """See `Plain`; the result is in float32."""
        if self._takes(module, x):
            return self._product(x, module.weight, module.bias)
        return super().linear(x, module).float()  # autocast gives bfloat16

    def attention(self, hidden: Tensor, modules: Projections, batch: PackedBatch, spec: AttentionSpec) -> Tensor:
        """See `Operations`; queries, keys and values are one product."""
        as_in_bert = spec.as_in_bert and modules.query_norm is None
        joined = self._joined(hidden, modules, torch.cat) if as_in_bert else None
        if joined is None:
            return super().attention(hidden, modules, batch, spec)
        qkv = self._product(hidden, *joined[:2])  # (tokens, 3 * width)
        if _takes_attention(qkv.shape[1] // 3, spec.settings.heads):
            return attention_qkv(qkv, batch, heads=spec.settings.heads, dropout=spec.dropout)
        query, key, value = qkv.chunk(3, dim=1)
        return Plain.attend(self, query, key, value, batch, spec)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, spec: AttentionSpec) -> Tensor:
        """See `Plain`."""
        heads = spec.settings.heads
        if not spec.as_in_bert or not _takes_attention(query.shape[1], heads):
            return super().attend(query, key, value, batch, spec)
        return attention_qkv(torch.cat((query, key, value), dim=1), batch, heads=heads, dropout=spec.dropout)

    def add_norm(
        self, x: Tensor, linear: nn.Module, residual: Tensor, norm: nn.Module | None, *, dropout: float
    ) -> Tensor:
        """See `Operations`."""
        if residual.dtype != torch.float32 or not norm_fits(norm, residual.shape[1], torch.float32):
            return super().add_norm(x, linear, residual, norm, dropout=dropout)
        product = self.linear(x, linear).contiguous()
        return add_norm(product, residual.contiguous(), norm.weight, norm.bias, eps=norm.eps, dropout=dropout)

    def embed(
        self, batch: PackedBatch, positions: Tensor, tables: Tables, norm: nn.Module | None, *, dropout: float
    ) -> Tensor:
        """See `Operations`."""
        hidden = super().embed(batch, positions, tables, norm, dropout=0.0)
        if dropout and hidden.dtype == torch.float32 and supports_rows(hidden.shape[1]):
            return drop(hidden.contiguous(), dropout=dropout)
        return F.dropout(hidden, dropout) if dropout else hidden

    def activate(self, x: Tensor, linear: nn.Module, activation: Activation, gate: nn.Module | None) -> Tensor:
        """See `Operations`."""
        return super().activate(x, linear, gelu if activation is F.gelu else activation, gate)

    def mean_pool(self, values: Tensor, batch: PackedBatch) -> Tensor:
        """See `Operations`; the kernel has no gradient."""
        differentiable = torch.is_grad_enabled() and values.requires_grad
        if differentiable or values.dtype != torch.float32 or not supports_rows(values.shape[1]):
            return super().mean_pool(values, batch)
        return mean_pool(values.contiguous(), batch)

    def _offered(self) -> bool:
        return self._half or super()._offered()

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return (onednn.half_linear if self._half else onednn.linear)(x, weight, bias)


def _takes_attention(dim: int, heads: int) -> bool:
    return supports(dim, heads) and dim // heads <= _LARGEST_HEAD


def supports(dim: int, heads: int = 1) -> bool:
    """Return True if the kernels take token vectors of size `dim`, cut into `heads`."""
    head = dim // heads
    return supports_rows(dim) and head * heads == dim and head % 16 == 0 and (heads == 1 or head <= _LARGEST_HEAD)


def attention_qkv(qkv: Tensor, batch: PackedBatch, *, heads: int, dropout: float = 0.0) -> Tensor:
    """Self-attention within each text: (tokens, 3 * dim), queries, keys and values side by side, to (tokens, dim)."""
    check("qkv", qkv, None, None, torch.float32)
    if qkv.shape[1] % 3 or not _takes_attention(qkv.shape[1] // 3, heads):
        raise ConfigError(
            f"got {qkv.shape[1]} columns for {heads} heads; expected three times heads of a multiple of 16, at most "
            f"{_LARGEST_HEAD}"
        )
    check_texts(batch.offsets, qkv.shape[0])
    drop = dropout_of(dropout)
    if torch.is_grad_enabled() and qkv.requires_grad:
        return cast(Tensor, _Attention.apply(qkv, batch.offsets, heads, drop))  # type: ignore[no-untyped-call]
    return _attention(qkv, batch.offsets, heads, drop, None)


def add_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, *, eps: float, dropout: float = 0.0
) -> Tensor:
    """`layer_norm(dropout(x) + residual)`, (tokens, dim) each, in float32."""
    tokens, dim = x.shape
    check("x", x, None, dim, torch.float32)
    _check_dim(dim)
    check("weight", weight, dim, None, torch.float32)
    check("bias", bias, dim, None, torch.float32)
    if residual is not None:
        check("residual", residual, tokens, dim, torch.float32)
    drop = dropout_of(dropout)
    inputs = (x, weight, bias) if residual is None else (x, residual, weight, bias)
    if torch.is_grad_enabled() and any(value.requires_grad for value in inputs):
        return cast(Tensor, _AddNorm.apply(x, residual, weight, bias, eps, drop))  # type: ignore[no-untyped-call]
    return _add_norm(x, residual, weight, bias, eps, drop, None, None)


def drop(x: Tensor, *, dropout: float) -> Tensor:
    """Dropout of (tokens, dim) in float32."""
    check("x", x, None, None, torch.float32)
    _check_dim(x.shape[1])
    return cast(Tensor, _Drop.apply(x, dropout_of(dropout)))  # type: ignore[no-untyped-call]


def gelu(x: Tensor) -> Tensor:
    """`x * (1 + erf(x / sqrt(2))) / 2` of every element, float32."""
    check("x", x, None, None, torch.float32)
    if torch.is_grad_enabled() and x.requires_grad:
        return cast(Tensor, _Gelu.apply(x))  # type: ignore[no-untyped-call]
    return _gelu(x)


def mean_pool(values: Tensor, batch: PackedBatch) -> Tensor:
    """Mean of the rows of each text: (tokens, dim) to (texts, dim) in float32, without a gradient."""
    tokens, dim = values.shape
    check("values", values, None, dim, torch.float32)
    _check_dim(dim)
    check_texts(batch.offsets, tokens)
    out = values.new_empty(batch.offsets.shape[0] - 1, dim)
    library.required().mean_pool(values.data_ptr(), batch.offsets.data_ptr(), out.shape[0], dim, out.data_ptr())
    return out


def adamw_rows_(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, rows: Tensor, to: AdamWStep) -> None:
    """One step of AdamW without weight decay on some rows of a float32 table, in place.

    It is torch's own to the bit if both multiply and add in one step (from the level `avx2` on).
    """
    count, dim = grad.shape
    _check_dim(dim)
    check("rows", rows, count, None, torch.int64)
    check("grad", grad, count, dim, torch.float32)
    for name, table in (("param", param), ("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)):
        check(name, table, param.shape[0], dim, torch.float32)
    fine = library.required().adamw_rows(
        *(param.data_ptr(), grad.data_ptr(), exp_avg.data_ptr(), exp_avg_sq.data_ptr(), rows.data_ptr()),
        *(count, param.shape[0], dim, *to),
    )
    if not fine:
        raise InputError(f"got row numbers that do not rise; expected each of 0 to {param.shape[0] - 1} once at most")


def draw_seed() -> int:
    """Draw a seed of dropout from torch's default generator."""
    return int(torch.randint(2**63 - 1, (1,)).item())


class Dropout(NamedTuple):
    """A dropout of one call: a random number of 32 bits keeps its element from `threshold` on, which is then scaled."""

    threshold: int
    scale: float
    seed: int


def dropout_of(probability: float) -> Dropout:
    """Return a dropout with a seed of its own, drawn from torch's default generator unless nothing is dropped.

    Raises:
        ConfigError: the probability is not from 0 to below 1.
    """
    if not 0 <= probability < 1:
        raise ConfigError(f"got dropout {probability}; expected at least 0 and below 1")
    threshold = min(round(probability * 2**32), 2**32 - 1)
    return Dropout(threshold, 1 / (1 - probability), draw_seed() if probability else 0)


def _attention(qkv: Tensor, offsets: Tensor, heads: int, drop: Dropout, lse: Tensor | None) -> Tensor:
    tokens, dim = qkv.shape[0], qkv.shape[1] // 3
    out = qkv.new_empty(tokens, dim)
    library.required().attention_forward(
        *(qkv.data_ptr(), out.data_ptr(), offsets.data_ptr(), offsets.shape[0] - 1),
        *(heads, dim // heads, 1 / math.sqrt(dim // heads), *drop, pointer(lse)),
    )
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, offsets: Tensor, heads: int, drop: Dropout) -> Tensor:
        lse = qkv.new_empty(qkv.shape[0], heads)
        out = _attention(qkv, offsets, heads, drop, lse)
        ctx.save_for_backward(qkv, offsets, lse, out)
        ctx.heads, ctx.drop = heads, drop
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        qkv, offsets, lse, out = ctx.saved_tensors
        grad = grads[0].contiguous()
        d_qkv = torch.empty_like(qkv)
        head_dim = qkv.shape[1] // 3 // ctx.heads
        library.required().attention_backward(
            *(qkv.data_ptr(), out.data_ptr(), grad.data_ptr(), lse.data_ptr(), d_qkv.data_ptr()),
            *(offsets.data_ptr(), offsets.shape[0] - 1, ctx.heads, head_dim, 1 / math.sqrt(head_dim), *ctx.drop),
        )
        return d_qkv, None, None, None


def _add_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, drop: Dropout, *saved: Tensor | None
) -> Tensor:
    out = torch.empty_like(x)
    library.required().add_norm_forward(
        *(*x.shape, x.data_ptr(), pointer(residual), weight.data_ptr(), bias.data_ptr(), eps),
        *(out.data_ptr(), *map(pointer, saved), *drop),
    )
    return out


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, drop: Dropout
    ) -> Tensor:
        xhat, rstd = torch.empty_like(x), x.new_empty(x.shape[0])
        out = _add_norm(x, residual, weight, bias, eps, drop, xhat, rstd)
        ctx.save_for_backward(xhat, rstd, weight)
        ctx.drop = drop
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        xhat, rstd, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        need_x, need_residual = ctx.needs_input_grad[:2]
        dropped = bool(ctx.drop.threshold)
        # Without dropout both gradients are the same.
        d_sum = torch.empty_like(xhat) if need_residual or not dropped else None
        d_x = torch.empty_like(xhat) if need_x and dropped else None
        d_weight, d_bias = torch.empty_like(weight), torch.empty_like(weight)
        library.required().add_norm_backward(
            *(*xhat.shape, grad.data_ptr(), xhat.data_ptr(), rstd.data_ptr(), weight.data_ptr()),
            *(pointer(d_x), pointer(d_sum), d_weight.data_ptr(), d_bias.data_ptr(), *ctx.drop),
        )
        return d_x if dropped else d_sum, d_sum if need_residual else None, d_weight, d_bias, None, None


def _drop(x: Tensor, drop: Dropout) -> Tensor:
    out = torch.empty_like(x)
    library.required().dropout(*x.shape, x.data_ptr(), out.data_ptr(), *drop)
    return out


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, drop: Dropout) -> Tensor:
        ctx.drop = drop
        return _drop(x, drop)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _drop(grads[0].contiguous(), ctx.drop), None


def _gelu(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    library.required().gelu_forward(x.numel(), x.data_ptr(), out.data_ptr())
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
        grad = grads[0].contiguous()
        d_x = torch.empty_like(x)
        library.required().gelu_backward(x.numel(), x.data_ptr(), grad.data_ptr(), d_x.data_ptr())
        return d_x


def _check_dim(dim: int) -> None:
    if not supports_rows(dim):
        raise ConfigError(f"got vectors of size {dim}; expected a multiple of 16, at most 4096")
