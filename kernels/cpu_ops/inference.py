"""The whole encoder on the CPU in inference: in C++ where that is built, or int8 products through oneDNN."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from minisbert.kernels.weights import Affine, EncoderWeights, Norm
from minisbert.packing import PackedBatch

from ..operations import plain
from . import int8, native
from .native import Kind

Product: TypeAlias = Callable[[Tensor], Tensor]  # (tokens, in) to (tokens, out)
InferenceEncoder: TypeAlias = Callable[[Tensor, Tensor, Tensor | None, PackedBatch], Tensor]


def lay_out(weights: EncoderWeights, *, quantized: bool) -> InferenceEncoder | None:
    """The fastest encoder that takes regular weights here, or None where that is the modules themselves."""
    dtype = weights.word.dtype
    if dtype not in (torch.float32, torch.bfloat16):
        return None
    kind: Kind = "bfloat16" if dtype == torch.bfloat16 else "int8" if quantized else "float32"
    if native.supports(weights, kind):
        return native.NativeEncoder(weights, kind)
    return Int8Encoder(weights) if kind == "int8" and int8.available() else None


class Int8Encoder:
    """An encoder with int8 products through oneDNN, laid out for inference.

    Args:
        weights: what to quantize; float32.
    """

    def __init__(self, weights: EncoderWeights) -> None:
        self._weights = weights
        self._layers = [
            (
                _product(layer.qkv()),
                _product(layer.output),
                layer.attention_norm.in_float32(),
                _product(layer.up, gelu=True),
                _product(layer.down),
                layer.output_norm.in_float32(),
            )
            for layer in weights.layers
        ]

    def __call__(self, ids: Tensor, positions: Tensor, types: Tensor | None, batch: PackedBatch) -> Tensor:
        """Embed tokens: (tokens,) numbers, positions and types to float32, (tokens, dim)."""
        weights = self._weights
        tables = (weights.word, weights.position, weights.token_type)
        norm = weights.norm.in_float32()
        hidden = plain.embed_norm(ids, positions, types, *tables, norm.weight, norm.bias, eps=norm.eps)
        for qkv, output, attention_norm, up, down, output_norm in self._layers:
            attended = plain.attention_qkv(qkv(hidden), batch, heads=weights.heads)
            hidden = _add_norm(output(attended), hidden, attention_norm)
            hidden = _add_norm(down(up(hidden)), hidden, output_norm)
        return hidden


def _add_norm(x: Tensor, residual: Tensor, norm: Norm) -> Tensor:
    return plain.add_norm(x, residual, norm.weight, norm.bias, eps=norm.eps)


def _product(affine: Affine, *, gelu: bool = False) -> Product:
    packed, bias = int8.prepare(affine.weight.detach()), affine.bias.detach()
    return lambda x: int8.linear(x, packed, bias, gelu=gelu)
