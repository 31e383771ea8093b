"""The modules that change a sentence embedding after pooling."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from ..errors import ConfigError
from ..similarity import normalize_embeddings
from .features import Features

ACTIVATION_FUNCTIONS: dict[str, type[nn.Module]] = {
    "torch.nn.modules.activation.Tanh": nn.Tanh,
    "torch.nn.modules.activation.ReLU": nn.ReLU,
    "torch.nn.modules.activation.GELU": nn.GELU,
    "torch.nn.modules.activation.SiLU": nn.SiLU,
    "torch.nn.modules.activation.Sigmoid": nn.Sigmoid,
    "torch.nn.modules.linear.Identity": nn.Identity,
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

    Raises:
        ConfigError: an unknown activation function.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        activation_function: str = "torch.nn.modules.activation.Tanh",
    ) -> None:
        super().__init__()
        if activation_function not in ACTIVATION_FUNCTIONS:
            raise ConfigError(
                f"got activation function {activation_function!r}; expected one of {', '.join(ACTIVATION_FUNCTIONS)}"
            )
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation = ACTIVATION_FUNCTIONS[activation_function]()
        self.activation_function = activation_function

    def forward(self, features: Features) -> Features:
        """(texts, in) to (texts, out)."""
        sentences = features.sentences.to(self.linear.weight.dtype)
        features.sentence_embedding = self.activation(self.linear(sentences))
        return features


class LayerNorm(nn.Module):
    """Layer normalization of the sentence embedding."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, features: Features) -> Features:
        """(texts, dim) to (texts, dim)."""
        features.sentence_embedding = self.norm(features.sentences.to(self.norm.weight.dtype))
        return features


class Dropout(nn.Module):
    """Dropout over the sentence embedding, while training."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, features: Features) -> Features:
        """(texts, dim) to (texts, dim)."""
        features.sentence_embedding = F.dropout(features.sentences, self.dropout, self.training)
        return features
