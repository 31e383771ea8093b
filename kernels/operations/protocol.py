"""The operations an encoder is made of, as a protocol with several implementations.

One forward pass uses one implementation from its embeddings to its last layer. `minisbert.kernels.choose` picks it:

    Plain     the definitions, in plain PyTorch (plain.py); every other implementation falls back on them
    Padded    the reference's padded computation, for replay only (padded.py)
    OneDnn    matrix products of the CPU through oneDNN (cpu_ops/onednn.py)
    Fused     C++ kernels between the products, with gradients (cpu_ops/fused.py)
    Whole     all layers in C++, with gradients (cpu_ops/training.py)
    Triton    CUDA kernels (triton_ops)

Operations take torch modules, not tensors. An implementation reads the weights of a module only if it is `as_built`;
any other module (hooked, swapped, wrapped in an adapter) is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias, TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisbert.packing import PackedBatch

from .memory import TrainingMemory

Activation: TypeAlias = Callable[[Tensor], Tensor]
_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class AttentionSettings:
    """The kind of self-attention of a layer.

    Attributes:
        heads: number of query heads.
        key_value_heads: number of key and value heads, which divides `heads`; None for as many.
        causal: a token attends to itself and to those before it only.
        window: a token attends to tokens at most this many positions away; None for all.
        rotary_base: base of the rotary position embeddings of queries and keys; None for none.
        scale: factor of the scores; None for 1 / sqrt(size of a head).
    """

    heads: int
    key_value_heads: int | None = None
    causal: bool = False
    window: int | None = None
    rotary_base: float | None = None
    scale: float | None = None

    @property
    def bidirectional(self) -> bool:
        """True if every token attends to all tokens of its text with its own head, as in BERT."""
        return self == AttentionSettings(self.heads)


class AttentionSpec(NamedTuple):
    """The attention of a layer in one forward pass.

    Attributes:
        settings: the kind of attention.
        dropout: probability of dropping an attention weight.
        bias: (heads, longest, longest), added to the scores before softmax, or None.
    """

    settings: AttentionSettings
    dropout: float = 0.0
    bias: Tensor | None = None

    @property
    def as_in_bert(self) -> bool:
        """True for bidirectional attention without a bias, which the kernels compute."""
        return self.bias is None and self.settings.bidirectional


class Projections(NamedTuple):
    """The linear layers before attention, and the normalizations of the heads of queries and keys, or None."""

    query: nn.Module
    key: nn.Module
    value: nn.Module
    query_norm: nn.Module | None = None
    key_norm: nn.Module | None = None

    @property
    def linears(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """The three linear layers."""
        return self.query, self.key, self.value


class Tables(NamedTuple):
    """The embedding tables of vocabulary, positions and token types; None for no such table."""

    word: nn.Embedding
    position: nn.Embedding | None
    token_type: nn.Embedding | None


class LayerInTraining(NamedTuple):
    """The modules of a layer of BERT that have weights, and its probabilities of dropout."""

    projections: Projections
    output: nn.Module
    attention_norm: nn.Module
    up: nn.Module
    down: nn.Module
    output_norm: nn.Module
    weight_dropout: float
    attention_dropout: float
    output_dropout: float


class Operations(Protocol):
    """The operations of one forward pass over a packed batch.

    The hidden states between operations, (tokens, dim), may be of another dtype than the weights. Dropout probabilities
    are 0 outside training.
    """

    def recordable(self, dim: int, settings: AttentionSettings) -> bool:
        """Return True if a CUDA graph can record a pass with modules as built and such attention, forward and backward.

        Such a pass launches the same work for all batches of a size, and never waits for the device.

        Args:
            dim: size of the queries of all heads.
            settings: the kind of attention.
        """
        ...

    def embed(
        self, batch: PackedBatch, positions: Tensor, tables: Tables, norm: nn.Module | None, *, dropout: float
    ) -> Tensor:
        """Sum the embeddings of every token, normalize the sum, and drop elements of it: (tokens, dim).

        Args:
            batch: the tokens; types are 0 where it has none.
            positions: int64, (tokens,): rows of the position table.
            tables: what is summed.
            norm: normalization of the sum, or None.
            dropout: probability of dropping an element.
        """
        ...

    def attention(self, hidden: Tensor, modules: Projections, batch: PackedBatch, spec: AttentionSpec) -> Tensor:
        """Project tokens to queries, keys and values, and attend within each text: (tokens, dim) to (tokens, width).

        Args:
            hidden: (tokens, dim).
            modules: map (tokens, dim) to (tokens, heads * size); key and value to their number of heads. Norms are of
                rows of a head's size.
            batch: the texts the tokens belong to.
            spec: the attention of this layer in this pass.
        """
        ...

    def add_norm(
        self, x: Tensor, linear: nn.Module, residual: Tensor, norm: nn.Module | None, *, dropout: float
    ) -> Tensor:
        """Compute `norm(dropout(linear(x)) + residual)`: (tokens, width) to (tokens, dim); without `norm`, the sum."""
        ...

    def norm_add(self, x: Tensor, linear: nn.Module, residual: Tensor, norm: nn.Module) -> Tensor:
        """Compute `norm(linear(x)) + residual`: (tokens, width) to (tokens, dim)."""
        ...

    def norm(self, hidden: Tensor, norm: nn.Module) -> Tensor:
        """Normalize the input of a block that normalizes first: (tokens, dim) to the same."""
        ...

    def activate(self, x: Tensor, linear: nn.Module, activation: Activation, gate: nn.Module | None) -> Tensor:
        """Compute `activation(linear(x))`, times `gate(x)` unless that is None: (tokens, dim) to (tokens, inner)."""
        ...

    def layers(
        self, hidden: Tensor, layers: Sequence[LayerInTraining], heads: int, batch: PackedBatch, memory: TrainingMemory
    ) -> Tensor | None:
        """Run all layers of BERT at once, with gradients, or return None: (tokens, dim) to the same.

        Args:
            hidden: (tokens, dim).
            layers: in their order; their activation is exact GELU.
            heads: of attention.
            batch: the texts the tokens belong to.
            memory: is used again from pass to pass.
        """
        ...

    def mean_pool(self, values: Tensor, batch: PackedBatch) -> Tensor:
        """Average the rows of each text: (tokens, dim) to (texts, dim), in float32 at least."""
        ...

    def real_tokens(self, values: Tensor, batch: PackedBatch) -> tuple[Tensor, PackedBatch]:
        """Return the rows of tokens that are not padding, and the batch of these."""
        ...


ACTIVATION_NAMES = ("gelu", "gelu_tanh", "relu", "silu")  # as activations.hpp numbers them


def activation_name(activation: Activation) -> str | None:
    """Return the name of an activation as kernels know it, or None."""
    if isinstance(activation, partial) and not activation.args and activation.keywords == {"approximate": "tanh"}:
        return "gelu_tanh" if activation.func is F.gelu else None
    for name, function in (("gelu", F.gelu), ("relu", F.relu), ("silu", F.silu)):
        if activation is function:
            return name
    return None


def as_built(module: nn.Module | None, kind: type[_Module]) -> TypeGuard[_Module]:
    """Return True if `module` computes what `kind` computes from its weights: not overridden, hooked or patched."""
    return (
        isinstance(module, kind)
        and type(module).forward is kind.forward
        and "forward" not in vars(module)
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (module._backward_hooks or module._backward_pre_hooks)
    )


def norm_fits(module: nn.Module | None, dim: int, *dtypes: torch.dtype) -> TypeGuard[nn.LayerNorm]:
    """Return True if `module` normalizes rows of a size that kernels take, with weights in one of some dtypes."""
    return (
        as_built(module, nn.LayerNorm)
        and module.normalized_shape == (dim,)
        and supports_rows(dim)
        and all(
            weight is not None and weight.dtype in dtypes and weight.is_contiguous()
            for weight in (module.weight, module.bias)
        )
    )


def supports_rows(dim: int) -> bool:
    """Return True if the kernels over whole rows take rows of size `dim`."""
    return 0 < dim <= 4096 and dim % 16 == 0
