"""The weights of an encoder, as operations that run over several of its layers take them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor


class Affine(NamedTuple):
    """A linear layer: weight (out, in), bias (out,)."""

    weight: Tensor
    bias: Tensor


class Norm(NamedTuple):
    """A layer normalization."""

    weight: Tensor
    bias: Tensor
    eps: float


class LayerWeights(NamedTuple):
    """A transformer layer with post-normalization and exact GELU."""

    query: Affine
    key: Affine
    value: Affine
    output: Affine
    attention_norm: Norm
    up: Affine
    down: Affine
    output_norm: Norm


class EncoderWeights(NamedTuple):
    """An encoder of the BERT family: embedding tables, (rows, dim), and layers."""

    word: Tensor
    position: Tensor
    token_type: Tensor | None
    norm: Norm
    layers: tuple[LayerWeights, ...]
    heads: int

    def tensors(self) -> Iterator[Tensor]:
        """Every weight."""
        yield self.word
        yield self.position
        if self.token_type is not None:
            yield self.token_type
        for norm in (self.norm, *(norm for layer in self.layers for norm in (layer.attention_norm, layer.output_norm))):
            yield norm.weight
            yield norm.bias
        for layer in self.layers:
            for affine in (layer.query, layer.key, layer.value, layer.output, layer.up, layer.down):
                yield affine.weight
                yield affine.bias
