"""Matrix products of the CPU through oneDNN, in float32 or bfloat16, straight from the weights.

`torch.nn.functional.linear` sends float32 products to Intel MKL, which takes a generic path on other makers'
processors. oneDNN, which every CPU build of torch carries, chooses by instruction set instead and is about twice as
fast there, at full float32 precision. The operator is private to torch and has no gradient, so its presence is
checked and the gradient is written out here.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisbert.packing import PackedBatch

from ..operations.plain import Plain
from ..operations.protocol import Activation, AttentionSpec, Projections, as_built
from ..operations.quantized import QuantizedLinear


@cache
def available() -> bool:
    """Return True if oneDNN should compute the float32 products of this machine.

    The answer depends on the machine alone and is not timed: a timed choice could differ between two runs, and with
    it the last bits of a resumed training.
    """
    offered = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return offered and not _intel()


@cache
def bfloat16_available() -> bool:
    """Return True if the processor multiplies in bfloat16, so that oneDNN is fast at it."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and supported is not None and bool(supported())


class OneDnn(Plain):
    """The operations with products through oneDNN, in float32; int8 weights are dequantized for each."""

    dtype = torch.float32

    def linear(self, x: Tensor, module: nn.Module) -> Tensor:
        """See `Plain`."""
        if self._takes(module, x):
            return self._product(x, module.weight, module.bias)
        if self._offered() and as_built(module, QuantizedLinear) and x.dtype == module.factors.dtype == torch.float32:
            return self._product(module.quantized_input(x), module.weight(), module.bias)
        return super().linear(x, module)

    def attention(self, hidden: Tensor, modules: Projections, batch: PackedBatch, spec: AttentionSpec) -> Tensor:
        """See `Operations`; in inference there is one product if the three weights are side by side in memory."""
        joined = None if torch.is_grad_enabled() else self._joined(hidden, modules, _side_by_side)
        if joined is None:
            return super().attention(hidden, modules, batch, spec)
        weight, bias, sizes = joined
        query, key, value = torch.split(self._product(hidden, weight, bias), sizes, dim=1)
        if modules.query_norm is not None:
            query, key = self._norm_heads(query, key, modules, spec)
        return self.attend(query, key, value, batch, spec)

    def activate(self, x: Tensor, linear: nn.Module, activation: Activation, gate: nn.Module | None) -> Tensor:
        """See `Operations`; in inference GELU is part of the product."""
        if torch.is_grad_enabled() or activation is not F.gelu or gate is not None or not self._takes(linear, x):
            return super().activate(x, linear, activation, gate)
        return _product(x, linear.weight, linear.bias, gelu=True)

    def norm(self, hidden: Tensor, norm: nn.Module) -> Tensor:
        """See `Operations`."""
        if not as_built(norm, nn.LayerNorm):
            return super().norm(hidden, norm)
        return F.layer_norm(hidden, norm.normalized_shape, norm.weight, norm.bias, norm.eps)  # without a module's call

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(x, weight, bias)

    def _joined(
        self, x: Tensor, modules: Projections, join: Callable[[list[Tensor]], Tensor | None]
    ) -> tuple[Tensor, Tensor | None, list[int]] | None:
        """Return linear layers as one: weight, bias and each one's columns; None if that is not possible."""
        layers = [module for module in modules.linears if self._takes(module, x)]
        biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        if len(layers) < len(modules.linears) or len(biases) not in (0, len(layers)):
            return None
        weight, bias = join([layer.weight for layer in layers]), join(biases) if biases else None
        if weight is None or (biases and bias is None):
            return None
        return weight, bias, [layer.weight.shape[0] for layer in layers]

    def _takes(self, module: nn.Module, x: Tensor) -> TypeGuard[nn.Linear]:
        """Return True if oneDNN computes what `module` does."""
        return self._offered() and as_built(module, nn.Linear) and x.dtype == module.weight.dtype == self.dtype

    def _offered(self) -> bool:
        """Return True if oneDNN should compute products of this dtype here."""
        return available()


class OneDnnHalf(OneDnn):
    """The operations for weights in bfloat16, in inference: products in bfloat16, everything else in float32."""

    dtype = torch.bfloat16

    def linear(self, x: Tensor, module: nn.Module) -> Tensor:
        """See `Plain`; the result is in bfloat16."""
        return super().linear(x.bfloat16(), module)

    def attention(self, hidden: Tensor, modules: Projections, batch: PackedBatch, spec: AttentionSpec) -> Tensor:
        """See `Operations`; the result is in bfloat16."""
        return super().attention(hidden.bfloat16(), modules, batch, spec)

    def activate(self, x: Tensor, linear: nn.Module, activation: Activation, gate: nn.Module | None) -> Tensor:
        """See `Operations`; the result is in bfloat16."""
        return super().activate(x.bfloat16(), linear, activation, gate)

    def norm(self, hidden: Tensor, norm: nn.Module) -> Tensor:
        """See `Operations`; the result is in float32."""
        if as_built(norm, nn.Identity):
            return hidden
        if as_built(norm, nn.RMSNorm) and norm.weight is not None:
            return F.rms_norm(hidden.float(), tuple(norm.normalized_shape), norm.weight.float(), norm.eps)
        if not as_built(norm, nn.LayerNorm):
            return super().norm(hidden.bfloat16(), norm).float()
        weight, bias = (None if value is None else value.float() for value in (norm.weight, norm.bias))
        return F.layer_norm(hidden.float(), norm.normalized_shape, weight, bias, norm.eps)

    def _offered(self) -> bool:
        return bfloat16_available()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`plain.linear`, differentiable: (tokens, in) to (tokens, out), all float32, or in inference all bfloat16."""
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return cast(Tensor, _Linear.apply(x, weight, bias, torch.float32))  # type: ignore[no-untyped-call]
    return _product(x, weight, bias)


def half_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`plain.linear` of float32 tensors with the products, forward and backward, in bfloat16."""
    return cast(Tensor, _Linear.apply(x, weight, bias, torch.bfloat16))  # type: ignore[no-untyped-call]


class _Linear(torch.autograd.Function):
    """A linear layer, float32 in and out, with products in another dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        rounded = grad.contiguous().to(x.dtype)
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        return (
            _product(rounded, weight.t(), None).float() if need_x else None,  # (tokens, in)
            _product(rounded.t(), x.t(), None).float() if need_weight else None,  # (out, in)
            grad.sum(0) if need_bias else None,  # (out,)
            None,
        )


def _side_by_side(tensors: Sequence[Tensor]) -> Tensor | None:
    """Return tensors as one, without a copy, if each is right behind the one before it in memory; else None."""
    first, address, rows = tensors[0], tensors[0].data_ptr(), 0
    for tensor in tensors:
        if tensor.data_ptr() != address or not tensor.is_contiguous():
            return None
        address, rows = address + tensor.nbytes, rows + tensor.shape[0]
    if tensors[-1].untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
        return None
    return first.as_strided((rows, *first.shape[1:]), first.stride())


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    activation, algorithm = ("gelu", "none") if gelu else ("none", "")
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], algorithm))


def _intel() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        return "GenuineIntel" in cpuinfo.read_text(errors="replace")[:4096]
    return "GenuineIntel" in platform.processor() or "Intel" in platform.processor()
