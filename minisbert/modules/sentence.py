"""The modules that change a sentence embedding after pooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch.nn.functional as F
from torch import nn

from ..errors import ConfigError
from ..similarity import normalize_embeddings
from ..storage.dialects import is_count
from .features import Features

# torch's activations that need no argument, have no weights, and keep the size of an embedding.
_PLAIN: tuple[type[nn.Module], ...] = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.Identity,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.ReLU,
    nn.ReLU6,
    nn.RReLU,
    nn.SELU,
    nn.Sigmoid,
    nn.SiLU,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
)
_OVER_DIMENSIONS: tuple[type[nn.Module], ...] = (nn.LogSoftmax, nn.Softmax, nn.Softmin)
# By full name, as it stands in a saved model. The table is closed: no name found in a file is ever imported.
ACTIVATION_FUNCTIONS: Mapping[str, Callable[[], nn.Module]] = {
    **{f"{kind.__module__}.{kind.__name__}": kind for kind in _PLAIN},
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
        in_features: size of the embedding before.
        out_features: size after.
        bias: whether the layer adds a bias.
        activation_function: one of `ACTIVATION_FUNCTIONS`, by its full torch name.
        use_residual: add the embedding to the result, through a linear layer of its own where the sizes differ.

    Raises:
        ConfigError: an unknown activation function, or a size that is none.
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
                f"got activation function {activation_function!r}; expected one of {', '.join(ACTIVATION_FUNCTIONS)}"
            )
        if not (is_count(in_features) and is_count(out_features)):
            raise ConfigError(f"got sizes {in_features!r} and {out_features!r}; expected two numbers above 0")
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
        ConfigError: the dimension is none.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        if not is_count(dimension):
            raise ConfigError(f"got dimension {dimension!r}; expected a number above 0")
        self.norm = nn.LayerNorm(dimension)

    def forward(self, features: Features) -> Features:
        """(texts, dim) to (texts, dim)."""
        features.sentence_embedding = self.norm(features.sentences.to(self.norm.weight.dtype))
        return features


class Dropout(nn.Module):
    """Dropout over the sentence embedding, while training.

    Raises:
        ConfigError: it is no share.
    """

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ConfigError(f"got dropout {dropout!r}; expected a number from 0 to 1")
        self.dropout = dropout

    def forward(self, features: Features) -> Features:
        """(texts, dim) to (texts, dim)."""
        features.sentence_embedding = F.dropout(features.sentences, self.dropout, self.training)
        return features
