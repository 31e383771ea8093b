"""The gated unit `activation(x) * gate` in one pass, and both gradients in another.

Backward reads x and gate again, so nothing more is saved. Plain definition: `plain.gated`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from minisbert.errors import ConfigError

from ..operations.protocol import ACTIVATION_NAMES
from .launch import DTYPES, launch

_BLOCK = 1024  # elements of a program


def gated(x: Tensor, gate: Tensor, activation: str) -> Tensor:
    """`activation(x) * gate` of every element, computed in float32, in x's dtype.

    Args:
        x: float32, float16 or bfloat16.
        gate: of the same shape and dtype.
        activation: "gelu", "gelu_tanh", "relu" or "silu".

    Raises:
        ConfigError: a shape, dtype or activation is unsupported.
    """
    if activation not in ACTIVATION_NAMES:
        raise ConfigError(f"got activation {activation!r}; expected one of {', '.join(ACTIVATION_NAMES)}")
    if x.shape != gate.shape or x.dtype != gate.dtype or x.dtype not in DTYPES:
        raise ConfigError(
            f"got x of shape {list(x.shape)}, {x.dtype}, and a gate of shape {list(gate.shape)}, {gate.dtype}; "
            f"expected equal ones in {' or '.join(map(str, DTYPES))}"
        )
    return cast(Tensor, _Gated.apply(x, gate, ACTIVATION_NAMES.index(activation)))  # type: ignore[no-untyped-call]


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, activation: int) -> Tensor:
        x, gate = x.contiguous(), gate.contiguous()
        ctx.save_for_backward(x, gate)
        ctx.activation = activation
        out = torch.empty_like(x)
        grid = (triton.cdiv(x.numel(), _BLOCK),)
        launch(_gated, grid, x, gate, out, x.numel(), ACTIVATION=activation, BLOCK=_BLOCK)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gate = ctx.saved_tensors
        d_x, d_gate = torch.empty_like(x), torch.empty_like(gate)
        constants = {"ACTIVATION": ctx.activation, "BLOCK": _BLOCK}
        grid = (triton.cdiv(x.numel(), _BLOCK),)
        launch(_gated_backward, grid, d_out.contiguous(), x, gate, d_x, d_gate, x.numel(), **constants)
        return d_x, d_gate, None


@triton.jit
def _tanh(value):
    """By the exponential of a negative number, which cannot overflow."""
    small = tl.exp(-2 * tl.abs(value))
    size = (1 - small) / (1 + small)
    return tl.where(value < 0, -size, size)


@triton.jit
def _activation(x, ACTIVATION: tl.constexpr):
    """The activation, numbered as in ACTIVATION_NAMES, and its derivative."""
    if ACTIVATION == 0:  # gelu
        cdf = 0.5 * (1 + tl.erf(x * 0.7071067811865476))
        value = x * cdf
        slope = cdf + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    elif ACTIVATION == 1:  # gelu_tanh
        near = tl.minimum(tl.maximum(x, -30.0), 30.0)  # beyond, tanh is 1 and the cube might overflow
        curve = _tanh(0.7978845608028654 * (near + 0.044715 * near * near * near))
        value = 0.5 * x * (1 + curve)
        steep = (1 - curve * curve) * 0.7978845608028654 * (1 + 0.134145 * near * near)
        slope = 0.5 * (1 + curve) + 0.5 * near * steep
    elif ACTIVATION == 2:  # relu
        value = tl.maximum(x, 0.0)
        slope = tl.where(x > 0, 1.0, 0.0)
    else:  # silu
        sigmoid = 0.5 * (1 + _tanh(0.5 * x))
        value = x * sigmoid
        slope = sigmoid * (1 + x * (1 - sigmoid))
    return value, slope


@triton.jit(do_not_specialize=["elements"])
def _gated(x, gate, out, elements, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < elements
    value, _ = _activation(tl.load(x + index, mask=inside, other=0).to(tl.float32), ACTIVATION)
    product = value * tl.load(gate + index, mask=inside, other=0).to(tl.float32)
    tl.store(out + index, product.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["elements"])
def _gated_backward(d_out, x, gate, d_x, d_gate, elements, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < elements
    value, slope = _activation(tl.load(x + index, mask=inside, other=0).to(tl.float32), ACTIVATION)
    grad = tl.load(d_out + index, mask=inside, other=0).to(tl.float32)
    factor = tl.load(gate + index, mask=inside, other=0).to(tl.float32)
    tl.store(d_x + index, (grad * factor * slope).to(d_x.dtype.element_ty), mask=inside)
    tl.store(d_gate + index, (grad * value).to(d_gate.dtype.element_ty), mask=inside)
