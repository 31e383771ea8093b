"""From token embeddings to one embedding per text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .. import kernels
from ..errors import ConfigError, ModelError, check_count, check_flag, shown
from ..kernels import plain
from .features import Features

# (tokens, dim), text of each token, place in its text from 1, tokens of each text -> (texts, dim)
_Pool: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Pooling(nn.Module):
    """Pools the tokens of each text; several modes are concatenated in the order given.

    Modes (formulas of the reference): "cls" the first token; "lasttoken" the last; "max" per dimension; "mean";
    "mean_sqrt_len_tokens" the sum over the square root of the count; "weightedmean" the mean weighted by place, from 1.
    Sums are taken in float32 at least, and the result is of that type.

    Args:
        embedding_dimension: size of the token embeddings.
        pooling_mode: one mode or several.
        include_prompt: if False, the tokens of a prompt are left out.

    Raises:
        ConfigError: an unknown mode, or none.
    """

    def __init__(
        self, embedding_dimension: int, pooling_mode: str | Sequence[str] = "mean", *, include_prompt: bool = True
    ) -> None:
        super().__init__()
        given = (
            [pooling_mode] if isinstance(pooling_mode, str) or not isinstance(pooling_mode, Sequence) else pooling_mode
        )
        modes = tuple(given)
        unknown = [mode for mode in modes if not isinstance(mode, str) or mode not in POOLING_MODES]
        if unknown or not modes:
            raise ConfigError(
                f"got pooling mode {list(modes)!r}; expected one or several of {', '.join(POOLING_MODES)}"
            )
        self.embedding_dimension = check_count(embedding_dimension, "embedding_dimension")
        self.pooling_mode = modes
        self.include_prompt = check_flag(include_prompt, "include_prompt")

    @property
    def output_dimension(self) -> int:
        """Size of the sentence embeddings."""
        return self.embedding_dimension * len(self.pooling_mode)

    def forward(self, features: Features) -> Features:
        """Set the sentence embeddings: (texts, dim)."""
        operations = kernels.choose(features.tokens, features.batch)
        with_prompt = self.include_prompt or not features.batch.prompt_length
        if self.pooling_mode == ("mean",) and with_prompt:
            features.sentence_embedding = operations.mean_pool(features.tokens, features.batch)
            return features
        tokens, batch = operations.real_tokens(features.tokens, features.batch)
        text_index, place, counts = batch.text_index, batch.positions + 1, batch.lengths
        if not with_prompt:
            kept = batch.positions >= batch.prompt_length
            tokens, text_index, place = tokens[kept], text_index[kept], place[kept]
            counts = (counts - batch.prompt_length).clamp(min=0)
        pooled = [POOLING_MODES[mode](tokens, text_index, place, counts) for mode in self.pooling_mode]
        features.sentence_embedding = torch.cat(pooled, dim=-1) if len(pooled) > 1 else pooled[0]
        return features

    def extra_repr(self) -> str:
        """The settings, for `repr`."""
        return f"{self.embedding_dimension}, {'+'.join(self.pooling_mode)}, include_prompt={self.include_prompt}"


class WeightedLayerPooling(nn.Module):
    """Makes token embeddings the weighted mean of what several layers of the encoder make of the tokens.

    It comes before `Pooling`. Layer 0 is the embeddings of words.

    Args:
        embedding_dimension: size of the token embeddings.
        num_hidden_layers: layers of the encoder.
        layer_start: the first layer that counts.
        layer_weights: a weight for each layer from there to the last, a floating-point tensor; trained. All 1 by
            default. They are finite, and their sum, by which the mean is divided, is not 0.

    Attributes:
        used: False for a saved model whose config.json does not ask for hidden states; the reference then leaves
            token embeddings as they are.

    Raises:
        ConfigError: a number is not valid, or there is not one weight for each layer, or they have no mean.
    """

    def __init__(
        self,
        embedding_dimension: int,
        num_hidden_layers: int = 12,
        layer_start: int = 4,
        layer_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.embedding_dimension = check_count(embedding_dimension, "embedding_dimension")
        self.num_hidden_layers = check_count(num_hidden_layers, "num_hidden_layers")
        self.layer_start = check_count(layer_start, "layer_start", least=0, most=num_hidden_layers)
        count = num_hidden_layers + 1 - layer_start
        if layer_weights is not None and not (isinstance(layer_weights, Tensor) and layer_weights.is_floating_point()):
            got = layer_weights.dtype if isinstance(layer_weights, Tensor) else type(layer_weights).__name__
            raise ConfigError(
                f"got layer_weights of type {got}; expected numbers in a tensor: pass torch.tensor([1.0])"
            )
        weights = torch.ones(count) if layer_weights is None else layer_weights.detach().clone()
        if weights.shape != (count,):
            raise ConfigError(
                f"got layer_weights of shape {tuple(weights.shape)}; expected ({count},), one for each layer"
            )
        self.layer_weights = nn.Parameter(weights)
        self.used = True
        if layer_weights is not None:
            self.check_weights()

    def check_weights(self) -> None:
        """Check that a mean with these weights is a number.

        Raises:
            ConfigError: it is none.
        """
        total = float(self.layer_weights.detach().double().sum())
        if not math.isfinite(total) or not total:
            raise ConfigError(
                f"got layer_weights {shown(self.layer_weights.tolist())}, whose sum is {total:g}; expected finite "
                f"weights with another sum than 0, by which their mean is divided"
            )

    def check_layers(self, count: int) -> None:
        """Check that an encoder has the number of layers that the weights are for.

        Raises:
            ModelError: it has another number.
        """
        if count != self.num_hidden_layers:
            raise ModelError(
                f"got {count} layers; this WeightedLayerPooling expects {self.num_hidden_layers}: pass the encoder's "
                f"num_hidden_layers"
            )

    def forward(self, features: Features) -> Features:
        """Set the token embeddings: (tokens, dim).

        Raises:
            ModelError: the encoder has another number of layers.
        """
        if not self.used:
            return features
        layers = features.layer_embeddings or []
        self.check_layers(max(len(layers) - 1, 0))
        if layers[0].shape[1] != self.embedding_dimension:
            raise ModelError(
                f"got token embeddings of {layers[0].shape[1]} dimensions; this WeightedLayerPooling expects "
                f"{self.embedding_dimension}: pass the encoder's size"
            )
        stacked = torch.stack(layers[self.layer_start :])  # (layers, tokens, dim)
        weights = self.layer_weights.to(stacked.dtype)[:, None, None]
        features.token_embeddings = (weights * stacked).sum(dim=0) / self.layer_weights.sum()
        return features

    def extra_repr(self) -> str:
        """The settings, for `repr`."""
        return f"{self.embedding_dimension}, layers {self.layer_start} to {self.num_hidden_layers}"


def _mean(tokens: Tensor, text_index: Tensor, place: Tensor, counts: Tensor) -> Tensor:
    total = plain.text_sum(tokens, text_index, len(counts))
    return total / counts.to(total.dtype).clamp(min=1e-9)[:, None]


def _mean_sqrt_len(tokens: Tensor, text_index: Tensor, place: Tensor, counts: Tensor) -> Tensor:
    total = plain.text_sum(tokens, text_index, len(counts))
    return total / counts.to(total.dtype).clamp(min=1e-9).sqrt()[:, None]


def _weightedmean(tokens: Tensor, text_index: Tensor, place: Tensor, counts: Tensor) -> Tensor:
    values = tokens if tokens.dtype == torch.float64 else tokens.float()
    weights = place.to(values.dtype)[:, None]
    total = plain.text_sum(values * weights, text_index, len(counts))
    return total / plain.text_sum(weights, text_index, len(counts)).clamp(min=1e-9)


def _max(tokens: Tensor, text_index: Tensor, place: Tensor, counts: Tensor) -> Tensor:
    lowest = torch.full((len(counts), tokens.shape[1]), -torch.inf, dtype=tokens.dtype, device=tokens.device)
    index = text_index[:, None].expand_as(tokens)
    largest = lowest.scatter_reduce(0, index, tokens, "amax")
    return largest.masked_fill((counts == 0)[:, None], 0)  # the reference has -inf, and NaN once it is normalized


def _cls(tokens: Tensor, text_index: Tensor, place: Tensor, counts: Tensor) -> Tensor:
    return _rows(tokens, counts.cumsum(0) - counts, counts)


def _lasttoken(tokens: Tensor, text_index: Tensor, place: Tensor, counts: Tensor) -> Tensor:
    return _rows(tokens, counts.cumsum(0) - 1, counts)


def _rows(tokens: Tensor, place: Tensor, counts: Tensor) -> Tensor:
    """One row of each text: (texts, dim); zeros for a text without tokens."""
    if not len(tokens):
        return tokens.new_zeros(len(counts), tokens.shape[1])
    return tokens[place.clamp(0, len(tokens) - 1)].masked_fill((counts == 0)[:, None], 0)


POOLING_MODES: dict[str, _Pool] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
    "weightedmean": _weightedmean,
    "lasttoken": _lasttoken,
}
