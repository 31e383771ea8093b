"""The weights of an encoder, as operations that run over several of its layers take them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LOOKED_AT = 16  # elements of a tensor


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
        yield from self.linears()

    def linears(self) -> Iterator[Tensor]:
        """Weights and biases of the linear layers."""
        for layer in self.layers:
            for affine in (layer.query, layer.key, layer.value, layer.output, layer.up, layer.down):
                yield affine.weight
                yield affine.bias


class Stamp:
    """Tells whether weights are still those they were, in some microseconds.

    torch counts most changes of a tensor, but neither those of its fused optimizers nor those made through `.data`. So
    some elements of each linear layer are looked at too.
    """

    def __init__(self, weights: EncoderWeights) -> None:
        self._probes = [_some(tensor) for tensor in weights.linears()]
        self._known = self._state(weights)

    def holds(self, weights: EncoderWeights) -> bool:
        """Whether nothing has changed."""
        return self._known == self._state(weights)

    def _state(self, weights: EncoderWeights) -> tuple[object, ...]:
        counted = tuple((tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in weights.tensors())
        return counted, np.concatenate(self._probes).tobytes()


def _some(tensor: Tensor) -> NDArray[np.int16]:
    """A few elements, as they stand in memory now and later."""
    elements = tensor.detach().view(torch.int16).view(-1)
    seen: NDArray[np.int16] = elements[:: max(1, elements.shape[0] // _LOOKED_AT)].numpy()
    return seen
