"""The encoder on the CPU without derivatives: weights laid out once, and few passes over the tokens.

Weights are laid out for oneDNN, query, key and value as one product, GELU within the product before it. Between the
products run the fused operations where they are built, and their plain definitions elsewhere. Weights in bfloat16 have
their products in bfloat16 and everything else in float32, the residual stream included; int8 has its own products.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from minisbert.kernels import plain
from minisbert.kernels.weights import Affine, EncoderWeights, LayerWeights, Norm
from minisbert.packing import PackedBatch

from . import fused, int8
from . import linear as onednn

Kind: TypeAlias = Literal["float32", "bfloat16", "int8"]
Product: TypeAlias = Callable[[Tensor], Tensor]  # (tokens, in) to (tokens, out)


def kind_of(weights: EncoderWeights, *, quantized: bool) -> Kind | None:
    """What products the weights can have here, or None."""
    types = {tensor.dtype for tensor in weights.tensors()}
    if types == {torch.float32}:
        return "int8" if quantized and int8.available() else "float32"
    if types == {torch.bfloat16} and onednn.bfloat16_available():
        return "bfloat16"
    return None


class CpuEncoder:
    """An encoder, laid out for inference.

    Args:
        weights: what to lay out; float32 or bfloat16, as `kind` says.
        kind: which products to use.
    """

    def __init__(self, weights: EncoderWeights, kind: Kind) -> None:
        dim = weights.word.shape[1]
        self._weights = weights
        self._half = kind == "bfloat16"
        self._norm = _in_float32(weights.norm)
        self._layers = [_Layer.of(layer, kind) for layer in weights.layers]
        self._operations: ModuleType = fused if fused.supports(dim, weights.heads) and fused.available() else plain

    def __call__(self, ids: Tensor, positions: Tensor, types: Tensor | None, batch: PackedBatch) -> Tensor:
        """Embed tokens: (tokens,) numbers, positions and types to float32, (tokens, dim)."""
        weights, operations = self._weights, self._operations
        hidden: Tensor = operations.embed_norm(
            *(ids, positions, types, weights.word, weights.position, weights.token_type),
            *self._norm[:2],
            eps=self._norm.eps,
        ).float()
        given = hidden.bfloat16() if self._half else hidden  # what the next product reads
        for layer in self._layers:
            attended = operations.attention_qkv(layer.qkv(given), batch, heads=weights.heads)
            hidden, given = self._add_norm(layer.output(attended), hidden, layer.attention_norm)
            hidden, given = self._add_norm(layer.down(layer.up(given)), hidden, layer.output_norm)
        return hidden

    def _add_norm(self, x: Tensor, residual: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
        """The sum, normalized, in float32 and as the next product reads it."""
        if self._half and self._operations is fused:
            return fused.add_norm_both(x, residual, norm.weight, norm.bias, eps=norm.eps)
        out: Tensor = self._operations.add_norm(x, residual, norm.weight, norm.bias, eps=norm.eps)
        return out, out.bfloat16() if self._half else out


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
