"""Modules that change the sentence embedding after pooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import torch.nn.functional as F
from torch import nn

from ..errors import ConfigError, check_count, shown
from ..similarity import normalize_embeddings
from .features import Features

_Types: TypeAlias = tuple[type[nn.Module], ...]

# The activations of torch that need no argument, have no weights, and keep the size of an embedding.
_RECTIFIERS: _Types = (nn.ReLU, nn.ReLU6, nn.RReLU, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish)
_SIGMOIDS: _Types = (nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Tanh, nn.Hardtanh, nn.Softsign)
_OTHERS: _Types = (nn.Identity, nn.Softplus, nn.Hardswish, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink)
_OVER_DIMENSIONS: _Types = (nn.LogSoftmax, nn.Softmax, nn.Softmin)
# By full name, as in a saved model. The table is closed: no name found in a file is ever imported.
ACTIVATION_FUNCTIONS: Mapping[str, Callable[[], nn.Module]] = {
    **{f"{kind.__module__}.{kind.__name__}": kind for kind in (*_RECTIFIERS, *_SIGMOIDS, *_OTHERS)},
    **{f"{kind.__module__}.{kind.__name__}": partial(kind, dim=-1) for kind in _OVER_DIMENSIONS},
}


class Normalize(nn.Module):
    """Scales every sentence embedding to length 1."""

    def forward(self, features: Features) -> Features:
        """(texts, dim) to (texts, dim)."""
        features.sentence_embedding = normalize_embeddings(features.sentences)
        return features


class Dense(nn.Module):
    """A linear layer and an activation over the sentence embedding.

    Args:
        in_features: size of the embedding it takes.
        out_features: size of the embedding it gives.
        bias: add a bias.
        activation_function: one of `ACTIVATION_FUNCTIONS`, by its full torch name.
        use_residual: add the embedding to the result, through a linear layer of its own where the sizes differ.

    Raises:
        ConfigError: the activation function is unknown, or a size is no whole number of at least 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        activation_function: str = "torch.nn.modules.activation.Tanh",
        use_residual: bool = False,
    ) -> None:
        super().__init__()
        if activation_function not in tuple(ACTIVATION_FUNCTIONS):
            raise ConfigError(
                f"got activation function {shown(activation_function)}; expected one of "
                f"{', '.join(ACTIVATION_FUNCTIONS)}"
            )
        check_count(in_features, "in_features")
        check_count(out_features, "out_features")
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation = ACTIVATION_FUNCTIONS[activation_function]()
        self.activation_function = activation_function
        self.use_residual = use_residual
        self.residual = None
        if use_residual and in_features != out_features:
            self.residual = nn.Linear(in_features, out_features, bias=False)

    def forward(self, features: Features) -> Features:
        """(texts, in) to (texts, out)."""
        sentences = features.sentences.to(self.linear.weight.dtype)
        result = self.activation(self.linear(sentences))
        if self.use_residual:
            result = result + (sentences if self.residual is None else self.residual(sentences))
        features.sentence_embedding = result
        return features


class LayerNorm(nn.Module):
    """Layer normalization of the sentence embedding.

    Raises:
        ConfigError: the dimension is no whole number of at least 1.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        check_count(dimension, "dimension")
        self.norm = nn.LayerNorm(dimension)

    def forward(self, features: Features) -> Features:
        """(texts, dim) to (texts, dim)."""
        features.sentence_embedding = self.norm(features.sentences.to(self.norm.weight.dtype))
        return features


class Dropout(nn.Module):
    """Dropout of the sentence embedding, in training mode.

    Raises:
        ConfigError: the probability is not a number from 0 to 1.
    """

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ConfigError(f"got dropout {shown(dropout)}; expected a number from 0 to 1")
        self.dropout = dropout

    def forward(self, features: Features) -> Features:
        """(texts, dim) to (texts, dim)."""
        features.sentence_embedding = F.dropout(features.sentences, self.dropout, self.training)
        return features
