"""The layers of a BERT encoder in C++ for training, forward and backward in one call each: `native/training.cpp`.

Products are in float32 or bfloat16, everything else in float32. Results do not depend on the number of threads. The
weights are read, and their gradients written, as torch stores them. Dropout draws its seeds as `Fused` does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minisbert.packing import PackedBatch

from ..operations.memory import TrainingMemory
from ..operations.protocol import LayerInTraining, as_built, norm_fits
from . import library
from .fused import Fused, dropout_of, supports
from .library import check_texts, pointer
from .native import NUMBERS, available

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64


class Whole(Fused):
    """The operations of `Fused`, and all layers at once if their modules are as built.

    Args:
        half: compute products in bfloat16, as autocast asks for; everything else stays in float32.
    """

    def __init__(self, *, half: bool = False) -> None:
        super().__init__(half=half)
        self._dtype = torch.bfloat16 if half else torch.float32

    def layers(
        self, hidden: Tensor, layers: Sequence[LayerInTraining], heads: int, batch: PackedBatch, memory: TrainingMemory
    ) -> Tensor | None:
        """See `Operations`."""
        if not torch.is_grad_enabled() or not available(self._dtype) or not takes(layers, heads, hidden):
            return None
        trained = hidden.requires_grad or any(value.requires_grad for layer in layers for value in _parameters(layer))
        return run_layers(hidden, layers, heads, batch, self._dtype, memory) if trained else None


def takes(layers: Sequence[LayerInTraining], heads: int, hidden: Tensor) -> bool:
    """Return True if the C++ computes what these layers do with hidden states like `hidden`."""
    dim = hidden.shape[1]
    if hidden.dtype != torch.float32 or not hidden.shape[0] or not layers or not supports(dim, heads):
        return False
    inner = getattr(layers[0].up, "out_features", 0)
    shapes = [(dim, dim)] * 4 + [(inner, dim), (dim, inner)]
    return (
        inner > 0 and inner % 16 == 0 and inner <= 1 << 16 and all(_layer_fits(layer, dim, shapes) for layer in layers)
    )


def _layer_fits(layer: LayerInTraining, dim: int, shapes: Sequence[tuple[int, int]]) -> bool:
    norms = all(norm_fits(norm, dim, torch.float32) for norm in (layer.attention_norm, layer.output_norm))
    return norms and all(
        as_built(linear, nn.Linear)
        and linear.bias is not None
        and linear.weight.shape == shape
        and all(_plain(value) for value in (linear.weight, linear.bias))
        for linear, shape in zip(_linears(layer), shapes, strict=True)
    )


def _plain(value: Tensor) -> bool:
    ordinary = type(value) is nn.Parameter and value.layout == torch.strided and value.device.type == "cpu"
    return ordinary and value.dtype == torch.float32 and value.is_contiguous()


def run_layers(
    hidden: Tensor,
    layers: Sequence[LayerInTraining],
    heads: int,
    batch: PackedBatch,
    dtype: torch.dtype,
    memory: TrainingMemory | None = None,
) -> Tensor:
    """Run layers that `takes` takes: (tokens, dim) to (tokens, dim), both float32, with products in `dtype`."""
    offsets = batch.offsets.contiguous()
    check_texts(offsets, hidden.shape[0])
    run = _Run(layers, heads, dtype, hidden.shape[1], memory or TrainingMemory())
    parameters = [value for layer in layers for value in _parameters(layer)]
    return cast(Tensor, _Layers.apply(hidden.contiguous(), offsets, run, *parameters))  # type: ignore[no-untyped-call]


def _linears(layer: LayerInTraining) -> tuple[nn.Linear, ...]:
    return cast("tuple[nn.Linear, ...]", (*layer.projections.linears, layer.output, layer.up, layer.down))


def _parameters(layer: LayerInTraining) -> list[Tensor]:
    """Weight and bias of each module: linear layers, then normalizations."""
    modules = (*_linears(layer), layer.attention_norm, layer.output_norm)
    return [cast(Tensor, value) for module in modules for value in (module.weight, module.bias)]


class _Run:
    """The arguments of the C++ for a pass, but for addresses of gradients, and its memory."""

    def __init__(
        self, layers: Sequence[LayerInTraining], heads: int, dtype: torch.dtype, dim: int, memory: TrainingMemory
    ) -> None:
        self.number, self.memory, self.threads = NUMBERS[dtype], memory, torch.get_num_threads()
        self.layers = (_Layer * len(layers))(*map(_layer, layers))
        inner = _linears(layers[0])[4].out_features
        self.all = _TrainedLayers(dim, heads, inner, len(layers), self.layers)

    def arguments(self, hidden: Tensor, offsets: Tensor) -> tuple[object, ...]:
        """The first arguments of the functions: dtype, layers, embeddings, offsets, texts, tokens and threads."""
        sizes = (offsets.shape[0] - 1, hidden.shape[0], self.threads)
        return self.number, ctypes.byref(self.all), hidden.data_ptr(), offsets.data_ptr(), *sizes


class _Layers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, offsets: Tensor, run: _Run, *parameters: Tensor) -> Tensor:
        functions, arguments = library.required(), run.arguments(hidden, offsets)
        kept = run.memory.kept.take(functions.training_kept(*arguments))
        shared = run.memory.shared.take(functions.training_shared(*arguments))
        out = torch.empty_like(hidden)
        functions.training_forward(*arguments, kept.data_ptr(), shared.data_ptr(), out.data_ptr())
        ctx.save_for_backward(hidden, offsets, kept, *parameters)
        ctx.run = run
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, offsets, kept, *parameters = ctx.saved_tensors
        run = cast(_Run, ctx.run)
        need_hidden, needed = ctx.needs_input_grad[0], ctx.needs_input_grad[3:]
        gradients = _gradients(parameters, needed, run.memory)
        count = len(parameters) // len(run.layers)
        for number, layer in enumerate(run.layers):
            layer.point_to(gradients[number * count : (number + 1) * count])
        lowest = 0 if need_hidden else next(i for i, need in enumerate(needed) if need) // count
        d_hidden = grads[0].clone(memory_format=torch.contiguous_format)
        functions, arguments = library.required(), run.arguments(hidden, offsets)
        shared = run.memory.shared.take(functions.training_shared(*arguments))
        functions.training_backward(*arguments, kept.data_ptr(), shared.data_ptr(), d_hidden.data_ptr(), lowest)
        return d_hidden if need_hidden else None, None, None, *gradients


def _gradients(parameters: Sequence[Tensor], needed: Sequence[bool], memory: TrainingMemory) -> list[Tensor | None]:
    """Memory for the gradients that are needed, side by side."""
    sizes = [value.numel() if need else 0 for value, need in zip(parameters, needed, strict=True)]
    parts = torch.split(memory.gradients.take(4 * sum(sizes)).view(torch.float32), sizes)
    return [part.view_as(value) if need else None for part, value, need in zip(parts, parameters, needed, strict=True)]


class _Dropout(ctypes.Structure):
    _fields_ = (("threshold", ctypes.c_uint32), ("scale", ctypes.c_float), ("seed", ctypes.c_uint64))


class _Linear(ctypes.Structure):
    _fields_ = tuple((name, _POINTER) for name in ("weight", "bias", "d_weight", "d_bias"))


class _Norm(ctypes.Structure):
    _fields_ = (*_Linear._fields_, ("eps", ctypes.c_float))


class _Layer(ctypes.Structure):
    _fields_ = (
        *(("qkv", _Linear * 3), ("output", _Linear), ("attention_norm", _Norm)),
        *(("up", _Linear), ("down", _Linear), ("output_norm", _Norm)),
        *((name, _Dropout) for name in ("weights", "attended", "fed")),
    )

    def point_to(self, gradients: Sequence[Tensor | None]) -> None:
        """Set the addresses of gradients: weight and bias of each module in the order of `run`."""
        parts = (*self.qkv, self.output, self.up, self.down, self.attention_norm, self.output_norm)
        for part, weight, bias in zip(parts, gradients[::2], gradients[1::2], strict=True):
            part.d_weight, part.d_bias = pointer(weight), pointer(bias)


class _TrainedLayers(ctypes.Structure):
    _fields_ = (*((name, _INT) for name in ("dim", "heads", "inner", "layers")), ("layer", ctypes.POINTER(_Layer)))


def _layer(layer: LayerInTraining) -> _Layer:
    query, key, value, output, up, down = (
        _Linear(linear.weight.data_ptr(), linear.bias.data_ptr()) for linear in _linears(layer)
    )
    first, last = (
        _Norm(norm.weight.data_ptr(), norm.bias.data_ptr(), None, None, norm.eps)
        for norm in cast("tuple[nn.LayerNorm, ...]", (layer.attention_norm, layer.output_norm))
    )
    drops = [_Dropout(*dropout_of(p)) for p in (layer.weight_dropout, layer.attention_dropout, layer.output_dropout)]
    return _Layer((_Linear * 3)(query, key, value), output, first, up, down, last, *drops)
