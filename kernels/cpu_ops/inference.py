"""The encoder on the CPU without derivatives: weights laid out once, and few passes over the tokens.

Where it is built, `native.py` runs all of it. Elsewhere its products go through oneDNN with the weights laid out,
query, key and value as one product, GELU within the product before it; between them stand the plain definitions.
Weights in bfloat16 have their products in bfloat16 and everything else in float32, the residual stream included; int8
has its own products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from minisbert.kernels import plain
from minisbert.kernels.weights import Affine, EncoderWeights, LayerWeights, Norm
from minisbert.packing import PackedBatch

from . import int8, native
from . import linear as onednn
from .native import Kind

Product: TypeAlias = Callable[[Tensor], Tensor]  # (tokens, in) to (tokens, out)
InferenceEncoder: TypeAlias = Callable[[Tensor, Tensor, Tensor | None, PackedBatch], Tensor]


def lay_out(weights: EncoderWeights, *, quantized: bool) -> InferenceEncoder | None:
    """The fastest encoder that takes the weights here, or None where that is the modules themselves."""
    types = {tensor.dtype for tensor in weights.tensors()}
    if types not in ({torch.float32}, {torch.bfloat16}):
        return None
    kind: Kind = "bfloat16" if types == {torch.bfloat16} else "int8" if quantized else "float32"
    if native.supports(weights, kind):
        return native.NativeEncoder(weights, kind)
    if kind == "int8" and not int8.available():
        kind = "float32"
    return None if kind == "bfloat16" and not onednn.bfloat16_available() else CpuEncoder(weights, kind)


class CpuEncoder:
    """An encoder, laid out for inference with oneDNN's products.

    Args:
        weights: what to lay out; float32 or bfloat16, as `kind` says.
        kind: which products to use.
    """

    def __init__(self, weights: EncoderWeights, kind: Kind) -> None:
        self._weights = weights
        self._half = kind == "bfloat16"
        self._norm = _in_float32(weights.norm)
        self._layers = [_Layer.of(layer, kind) for layer in weights.layers]

    def __call__(self, ids: Tensor, positions: Tensor, types: Tensor | None, batch: PackedBatch) -> Tensor:
        """Embed tokens: (tokens,) numbers, positions and types to float32, (tokens, dim)."""
        weights = self._weights
        tables = (weights.word, weights.position, weights.token_type)
        hidden = plain.embed_norm(ids, positions, types, *tables, *self._norm[:2], eps=self._norm.eps).float()
        for layer in self._layers:
            attended = plain.attention_qkv(layer.qkv(self._given(hidden)), batch, heads=weights.heads)
            hidden = _add_norm(layer.output(attended), hidden, layer.attention_norm)
            hidden = _add_norm(layer.down(layer.up(self._given(hidden))), hidden, layer.output_norm)
        return hidden

    def _given(self, hidden: Tensor) -> Tensor:
        """The residual stream as the next product reads it."""
        return hidden.bfloat16() if self._half else hidden


def _add_norm(x: Tensor, residual: Tensor, norm: Norm) -> Tensor:
    return plain.add_norm(x, residual, norm.weight, norm.bias, eps=norm.eps)


class _Layer(NamedTuple):
    qkv: Product
    output: Product
    attention_norm: Norm
    up: Product
    down: Product
    output_norm: Norm

    @classmethod
    def of(cls, layer: LayerWeights, kind: Kind) -> _Layer:
        parts = (layer.query, layer.key, layer.value)
        together = Affine(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))
        return cls(
            _product(together, kind),
            _product(layer.output, kind),
            _in_float32(layer.attention_norm),
            _product(layer.up, kind, gelu=True),
            _product(layer.down, kind),
            _in_float32(layer.output_norm),
        )


def _product(affine: Affine, kind: Kind, *, gelu: bool = False) -> Product:
    weight, bias = affine.weight.detach(), affine.bias.detach()
    if kind == "int8":
        packed = int8.prepare(weight)
        return lambda x: int8.linear(x, packed, bias, gelu=gelu)
    if onednn.available() or kind == "bfloat16":
        return onednn.prepared(weight, bias, gelu=gelu)
    return (lambda x: F.gelu(F.linear(x, weight, bias))) if gelu else (lambda x: F.linear(x, weight, bias))


def _in_float32(norm: Norm) -> Norm:
    return Norm(norm.weight.detach().float(), norm.bias.detach().float(), norm.eps)
