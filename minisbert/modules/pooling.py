"""From token embeddings to one embedding per text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .. import kernels
from ..errors import ConfigError
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
        modes = (pooling_mode,) if isinstance(pooling_mode, str) else tuple(pooling_mode)
        unknown = [mode for mode in modes if mode not in POOLING_MODES]
        if unknown or not modes:
            raise ConfigError(
                f"got pooling mode {list(modes)!r}; expected one or several of {', '.join(POOLING_MODES)}"
            )
        self.embedding_dimension = embedding_dimension
        self.pooling_mode = modes
        self.include_prompt = include_prompt

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
    return lowest.scatter_reduce(0, index, tokens, "amax")


def _cls(tokens: Tensor, text_index: Tensor, place: Tensor, counts: Tensor) -> Tensor:
    return tokens[counts.cumsum(0) - counts]


def _lasttoken(tokens: Tensor, text_index: Tensor, place: Tensor, counts: Tensor) -> Tensor:
    return tokens[counts.cumsum(0) - 1]


POOLING_MODES: dict[str, _Pool] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
    "weightedmean": _weightedmean,
    "lasttoken": _lasttoken,
}
