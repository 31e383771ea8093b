"""Linear layers through oneDNN: float32 in and out, with products in float32 or bfloat16; laid out for inference.

`torch.nn.functional.linear` sends float32 products to Intel MKL, which takes a generic path on other makers'
processors. oneDNN, which every CPU build of torch carries, chooses by instruction set instead and is about twice as
fast there, at full float32 precision. The operator is private to torch and has no derivative, so its presence is
checked and the derivative is written out here.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor


def available() -> bool:
    """Whether oneDNN should take the linear layers of this machine.

    The answer depends on the machine alone and is not timed: a timed choice could differ between two runs, and with
    it the last bits of a resumed training.
    """
    offered = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return offered and not _intel()


@cache
def bfloat16_available() -> bool:
    """Whether the processor multiplies in bfloat16, so that oneDNN is fast at it."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and supported is not None and bool(supported())


def prepared(weight: Tensor, bias: Tensor, *, gelu: bool = False) -> Callable[[Tensor], Tensor]:
    """Lay a weight out, float32 or bfloat16: the result takes (tokens, in) of that type to (tokens, out).

    Args:
        weight: (out, in).
        bias: (out,).
        gelu: put exact GELU behind the product.
    """
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    activation, algorithm = ("gelu", "none") if gelu else ("none", "")

    def product(x: Tensor) -> Tensor:
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, laid_out, bias, activation, [], algorithm))

    return product


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x @ weight.T + bias`, differentiable: float32, (tokens, in) to (tokens, out)."""
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return cast(Tensor, _Linear.apply(x, weight, bias, torch.float32))  # type: ignore[no-untyped-call]
    return _product(x, weight, bias)


def half_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`linear` of float32 tensors with the products, forward and backward, in bfloat16."""
    return cast(Tensor, _Linear.apply(x, weight, bias, torch.bfloat16))  # type: ignore[no-untyped-call]


class _Linear(torch.autograd.Function):
    """Float32 in and out; the products are of type `within`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, within: torch.dtype) -> Tensor:
        x, weight, bias = x.to(within), weight.to(within), None if bias is None else bias.to(within)
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        given = grad.contiguous().to(x.dtype)
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        return (
            _product(given, weight.t(), None).float() if need_x else None,  # (tokens, in)
            _product(given.t(), x.t(), None).float() if need_weight else None,  # (out, in)
            grad.sum(0) if need_bias else None,  # (out,)
            None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))


def _intel() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        return "GenuineIntel" in cpuinfo.read_text(errors="replace")[:4096]
    return "GenuineIntel" in platform.processor() or "Intel" in platform.processor()
