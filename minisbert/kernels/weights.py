"""The weights of an encoder, as operations that run over several of its layers take them."""

from __future__ import annotations

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

    def in_float32(self) -> Norm:
        """The same without derivatives, in float32."""
        return Norm(self.weight.detach().float(), self.bias.detach().float(), self.eps)


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

    def qkv(self) -> Affine:
        """Query, key and value as one linear layer."""
        parts = (self.query, self.key, self.value)
        return Affine(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))


class Dropouts(NamedTuple):
    """Probabilities of dropping an element, where an encoder drops some in training."""

    embeddings: float = 0.0
    attention_weights: float = 0.0
    attention_output: float = 0.0
    output: float = 0.0


NO_DROPOUT = Dropouts()


class EncoderWeights(NamedTuple):
    """An encoder of the BERT family: embedding tables, (rows, dim), and layers."""

    word: Tensor
    position: Tensor
    token_type: Tensor | None
    norm: Norm
    layers: tuple[LayerWeights, ...]
    heads: int

    @property
    def dim(self) -> int:
        """Size of a token's vector."""
        return self.word.shape[-1]

    @property
    def inner(self) -> int:
        """Size between the two linear layers after attention; 0 without layers."""
        return self.layers[0].up.weight.shape[0] if self.layers else 0

    def regular(self) -> bool:
        """Whether all weights are there, lie contiguously in the shapes of one encoder, and are of one type."""
        dim, inner = self.dim, self.inner
        square = [part for layer in self.layers for part in (layer.query, layer.key, layer.value, layer.output)]
        affines = [
            *((part, dim, dim) for part in square),
            *((layer.up, inner, dim) for layer in self.layers),
            *((layer.down, dim, inner) for layer in self.layers),
        ]
        tables = [self.word, self.position, *([] if self.token_type is None else [self.token_type])]
        norms = [self.norm, *(norm for layer in self.layers for norm in (layer.attention_norm, layer.output_norm))]
        expected = [
            *((table, (table.shape[0], dim)) for table in tables),
            *((weight, (dim,)) for norm in norms for weight in (norm.weight, norm.bias)),
            *((affine.weight, (columns, depth)) for affine, columns, depth in affines),
            *((affine.bias, (columns,)) for affine, columns, _ in affines),
        ]
        return all(
            isinstance(weight, Tensor)
            and weight.shape == shape
            and weight.is_contiguous()
            and (weight.dtype, weight.device) == (self.word.dtype, self.word.device)
            for weight, shape in expected
        )


class Stamp:
    """Tells whether the weights of some modules are still those they were, in some microseconds.

    torch counts most changes of a tensor, but neither those of its fused optimizers nor those made through `.data`. So
    some elements of each weight are looked at too, but for embedding tables: those are read where they stand, as all
    weights on a GPU are, of which only the place counts.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self._modules = modules
        self._known = self._counted()
        self._probes = [
            _some(weight)
            for part in modules
            if not isinstance(part, nn.Embedding)
            for weight in part.parameters(recurse=False)
            if not weight.is_cuda
        ]
        self._seen = self._looked_at()

    def holds(self, modules: list[nn.Module]) -> bool:
        """Whether these are the modules, and nothing has changed."""
        if len(modules) != len(self._modules) or not all(map(is_, modules, self._modules)):
            return False
        # The probes are read last: where a weight has moved, they point to memory that may be gone.
        return self._known == self._counted() and self._seen == self._looked_at()

    def _counted(self) -> list[object]:
        found: list[object] = [getattr(part, "eps", None) for part in self._modules]
        for part in self._modules:
            for weight in part._parameters.values():
                if weight is not None:
                    changes = 0 if weight.is_inference() or weight.is_cuda else weight._version
                    found.append((weight.data_ptr(), changes, weight.dtype, weight.shape, weight.is_contiguous()))
        return found

    def _looked_at(self) -> bytes:
        return np.concatenate(self._probes).tobytes() if self._probes else b""


def submodules(module: nn.Module) -> list[nn.Module]:
    """A module and all within it, one within several as often: what `modules()` tells, ten times as fast."""
    found = [module]
    for part in found:  # which grows meanwhile
        if children := part._modules:
            found += [child for child in children.values() if child is not None]
    return found


def _some(tensor: Tensor) -> NDArray[np.int32]:
    """A few elements, as they stand in memory now and later."""
    whole = tensor.detach().view(-1).view(torch.int16 if tensor.element_size() == 2 else torch.int32)
    seen: NDArray[np.int32] = whole[:: (whole.shape[0] // _LOOKED_AT) | 1].numpy()
    return seen
