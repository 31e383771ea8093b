"""Regularization that spreads embeddings over the space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from ..similarity import SimilarityMatrix, cos_sim
from .base import Loss, check_callable, check_choice, check_number, function_name


class GlobalOrthogonalRegularizationLoss(Loss):
    """The squared mean of the similarities of different rows, and how far their mean square is above 1 / dim.

    Any number of text columns, of which each counts by itself; labels are ignored. Random directions have a mean of 0
    and a mean square of 1 / dim (Zhang et al. 2017, https://arxiv.org/abs/1708.06320). It is meant to be added to
    another loss.

    Args:
        model: not used; accepted because code for the reference passes it.
        similarity_fct: all pairs, (n, d) and (m, d) to (n, m).
        mean_weight: factor of the first term; None or 0 leaves it out.
        second_moment_weight: factor of the second term; None or 0 leaves it out.
        aggregation: "mean" or "sum" over the columns.

    Raises:
        ConfigError: both terms are left out, or an option is not valid.
    """

    min_columns = 1

    def __init__(
        self,
        model: object = None,
        *,
        similarity_fct: SimilarityMatrix = cos_sim,
        mean_weight: float | None = 1.0,
        second_moment_weight: float | None = 1.0,
        aggregation: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        self.similarity_fct = check_callable(similarity_fct, "similarity_fct", "util.cos_sim")
        for name, weight in (("mean_weight", mean_weight), ("second_moment_weight", second_moment_weight)):
            if weight is not None:
                check_number(weight, name)
        if not mean_weight and not second_moment_weight:
            raise ConfigError("got no weight for either term; expected one: pass mean_weight or second_moment_weight")
        self.mean_weight, self.second_moment_weight = mean_weight, second_moment_weight
        self.aggregation = check_choice(aggregation, "aggregation", ("mean", "sum"))

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> dict[str, Tensor]:
        """Return the terms for (batch, dim) tensors by name, gor_mean and gor_second_moment, each a scalar."""
        columns = [self._terms_of(column) for column in self.columns(embeddings)]
        reduce = torch.mean if self.aggregation == "mean" else torch.sum
        mean, second = (reduce(torch.stack(values)) for values in zip(*columns, strict=True))
        terms = {"gor_mean": (mean, self.mean_weight), "gor_second_moment": (second, self.second_moment_weight)}
        return {name: value * weight for name, (value, weight) in terms.items() if weight}

    def _terms_of(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        rows, size = texts.shape
        if rows < 2:  # no different rows
            return texts.sum() * 0, texts.sum() * 0
        own = torch.eye(rows, dtype=torch.bool, device=texts.device)
        others = self.similarity_fct(texts, texts).masked_fill(own, 0)
        pairs = rows * (rows - 1)
        return (others.sum() / pairs).square(), (others.square().sum() / pairs - 1 / size).relu()

    def get_config_dict(self) -> dict[str, Any]:
        """Return similarity, weights and aggregation."""
        return {
            "similarity_fct": function_name(self.similarity_fct),
            "mean_weight": self.mean_weight,
            "second_moment_weight": self.second_moment_weight,
            "aggregation": self.aggregation,
        }
