"""The weights of an encoder, as operations that run over several of its layers take them."""

from __future__ import annotations

from collections.abc import Iterator
from operator import is_
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

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
        for layer in self.layers:
            for affine in (layer.query, layer.key, layer.value, layer.output, layer.up, layer.down):
                yield affine.weight
                yield affine.bias


class Stamp:
    """Tells whether the weights of a module are still those they were, in some microseconds.

    torch counts most changes of a tensor, but neither those of its fused optimizers nor those made through `.data`. So
    some elements of each weight are looked at too, but for embedding tables: those are read where they stand.
    """

    def __init__(self, module: nn.Module) -> None:
        self._modules = submodules(module)
        self._probes = [
            _some(weight)
            for part in self._modules
            if not isinstance(part, nn.Embedding)
            for weight in part.parameters(recurse=False)
        ]
        self._known = self._state()

    def holds(self, module: nn.Module) -> bool:
        """Whether nothing has changed."""
        modules = submodules(module)
        same = len(modules) == len(self._modules) and all(map(is_, modules, self._modules))
        return same and self._known == self._state()

    def _state(self) -> tuple[object, ...]:
        counted = [
            (weight.data_ptr(), weight._version, weight.dtype)
            for part in self._modules
            for weight in part._parameters.values()
            if weight is not None
        ]
        return counted, np.concatenate(self._probes).tobytes()


def submodules(module: nn.Module) -> list[nn.Module]:
    """A module and all within it, one within several as often: what `modules()` tells, ten times as fast."""
    found = [module]
    for part in found:  # which grows meanwhile
        found.extend(child for child in part._modules.values() if child is not None)
    return found


def _some(tensor: Tensor) -> NDArray[np.int16]:
    """A few elements, as they stand in memory now and later."""
    elements = tensor.detach().view(torch.int16).view(-1)
    seen: NDArray[np.int16] = elements[:: max(1, elements.shape[0] // _LOOKED_AT)].numpy()
    return seen
